// Login, tokens and their ends, against the real gateway and simulator.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { demo, gateway } from './shim/world.mjs'
import { Phone, fetchText } from './shim/wx.mjs'

const HOUR = 3600e3
let world
before(async () => (world = await demo()))
after(() => world.stop())

/** A phone, an app on it, and the app's gateway; all closed with the test. */
function visitor(t, where = world, options = {}) {
  const phone = new Phone(where)
  t.after(() => phone.close())
  const launch = more => {
    const app = phone.launch()
    return Object.assign(app.createGateway({ baseURL: where.gateway, ...options, ...more }), { app })
  }
  return { phone, launch, wx: launch() }
}

const fails = (promise, code) =>
  promise.then(
    () => assert.fail(`succeeded instead of ${code}`),
    error => {
      assert.equal(error.code, code)
      assert.equal(error.name, 'GatewayError')
      return error
    },
  )

const hello = { url: '/api/hello' }
const tokenOf = phone => [...phone.storage.values()][0].answer.access_token

async function revoke(phone, where = world) {
  const headers = { authorization: `Bearer ${tokenOf(phone)}` }
  const { status } = await fetchText(null, `${where.gateway}/auth/logout`, { method: 'POST', headers })
  assert.equal(status, 204)
}

test('ten requests of a cold start share one wx.login and one /auth/login', async t => {
  const { phone, wx } = visitor(t)
  const before = await world.exchanges()
  const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => wx.request({ url: `/api/page/${i}` })))
  assert.equal(new Set(answers.map(a => a.data.openid)).size, 1)
  assert.ok(answers.every(a => a.statusCode === 200 && a.data.openid && a.data.authorization === null))
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/login'), 1)
  assert.equal((await world.exchanges()) - before, 1)
})

test('a restart of the app keeps the session', async t => {
  const { phone, wx, launch } = visitor(t)
  const { openid } = await wx.login()
  const again = launch()
  assert.equal(again.session.openid, openid)
  assert.equal((await again.request(hello)).data.openid, openid)
  assert.equal(phone.calls.login, 1)
})

test('the session that pages see has no tokens', async t => {
  const { wx } = visitor(t)
  const session = await wx.login()
  assert.ok(session.openid && session.member_id && session.is_new === true)
  assert.ok(!JSON.stringify(session).includes('token":'))
  assert.ok(!JSON.stringify(wx.session).includes('token":'))
})

test('onAuthChange hears of login and logout', async t => {
  const heard = []
  const { wx } = visitor(t, world, { onAuthChange: session => heard.push(session ? 'in' : 'out') })
  await wx.login()
  await wx.logout()
  await wx.login({})
  while (heard.length < 3) await new Promise(setImmediate)
  assert.deepEqual(heard, ['in', 'out', 'in'])
})

test('a token is refreshed ahead of its end, once, and no request waits for it', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  wx.app.ahead += 2 * HOUR - 60e3
  await Promise.all(Array.from({ length: 5 }, () => wx.request(hello)))
  while (phone.count('/auth/refresh') < 1 || tokenOf(phone) === undefined) await new Promise(setImmediate)
  assert.equal(phone.count('/auth/refresh'), 1)
  assert.equal(phone.calls.login, 1)
})

test('requests that meet an expired token share one refresh', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  const first = tokenOf(phone)
  wx.app.ahead += 3 * HOUR
  await Promise.all(Array.from({ length: 10 }, () => wx.request(hello)))
  assert.notEqual(tokenOf(phone), first)
  assert.equal(phone.count('/auth/refresh'), 1)
  assert.equal(phone.calls.login, 1)
})

test('a refresh answer that was lost is asked for again, and the session goes on', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  const { id } = (await wx.me()).session
  wx.app.ahead += 3 * HOUR
  phone.spoil('/auth/refresh', { lose: true })
  await wx.request(hello)
  assert.equal(phone.count('/auth/refresh'), 2)
  assert.equal((await wx.me()).session.id, id)
  assert.equal(phone.calls.login, 1)
})

test('a login answer that was lost is asked for again with the same code: one session', async t => {
  const { phone, wx } = visitor(t)
  const before = await world.exchanges()
  phone.spoil('/auth/login', { lose: true })
  await wx.request(hello)
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/login'), 2)
  assert.equal((await world.exchanges()) - before, 1)
})

test('a refresh that the background interrupts goes on afterwards, in the same session', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  const { id } = (await wx.me()).session
  wx.app.ahead += 3 * HOUR
  const request = wx.request({ ...hello, method: 'POST' })
  while (phone.count('/auth/refresh') < 1) await new Promise(setImmediate)
  wx.app.hide()
  await new Promise(setImmediate)
  assert.equal(phone.count('/auth/refresh'), 1)
  wx.app.show()
  assert.equal((await request).statusCode, 200)
  assert.equal(phone.count('/auth/refresh'), 2)
  assert.equal((await wx.me()).session.id, id)
  assert.equal(phone.calls.login, 1)
})

test('an app that was killed before the refresh answer came goes on after the restart', async t => {
  const { phone, wx, launch } = visitor(t)
  await wx.login()
  wx.app.ahead += 3 * HOUR
  const stored = structuredClone(phone.storage)
  await wx.request(hello)
  // What the killed app did not get to store.
  phone.storage = stored
  const again = launch()
  again.app.ahead += 3 * HOUR
  assert.equal((await again.request(hello)).statusCode, 200)
  assert.equal(phone.calls.login, 1)
})

test('a session that was revoked is followed by one new login, and the request is repeated', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  await revoke(phone)
  const answers = await Promise.all(Array.from({ length: 5 }, () => wx.request({ ...hello, method: 'POST', data: { a: 1 } })))
  assert.ok(answers.every(a => a.statusCode === 200))
  assert.equal(phone.calls.login, 2)
  assert.equal(phone.count('/auth/login'), 2)
})

test('a revoked session whose token has expired as well is followed by a login', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  await revoke(phone)
  wx.app.ahead += 3 * HOUR
  assert.equal((await wx.request(hello)).statusCode, 200)
  assert.equal(phone.calls.login, 2)
})

test('tokens that are refused as soon as they are made do not make a loop', async t => {
  const { phone, wx } = visitor(t)
  const refusal = {
    statusCode: 401,
    data: JSON.stringify({ type: 'urn:wxgate:problem:token_invalid', code: 'token_invalid', status: 401 }),
  }
  for (let i = 0; i < 30; i++) phone.spoil('/api/hello', { answer: refusal })
  for (let i = 0; i < 10; i++) await fails(wx.request(hello), 'token_invalid')
  assert.ok(phone.calls.login <= 3, `${phone.calls.login} logins`)
})

test('logout ends the session there and here, and nothing logs in silently', async t => {
  const { phone, wx, launch } = visitor(t)
  await wx.login()
  const token = tokenOf(phone)
  await wx.logout()
  assert.equal(wx.session, null)
  const headers = { authorization: `Bearer ${token}` }
  assert.equal((await fetchText(null, `${world.gateway}/api/hello`, { headers })).status, 401)
  await fails(wx.request(hello), 'logged_out')
  await fails(launch().request(hello), 'logged_out')
  assert.equal((await wx.request({ url: '/public/hello', auth: 'optional' })).data.openid, null)
  assert.equal(phone.calls.login, 1)
  await wx.login()
  assert.equal((await wx.request(hello)).statusCode, 200)
})

test('logout ends the session also when the access token has expired', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  const token = tokenOf(phone)
  wx.app.ahead += 3 * HOUR
  await wx.logout()
  const headers = { authorization: `Bearer ${token}` }
  assert.equal((await fetchText(null, `${world.gateway}/api/hello`, { headers })).status, 401)
})

test('erase deletes the member', async t => {
  const { wx } = visitor(t)
  const { member_id } = await wx.login()
  await wx.erase()
  assert.equal(wx.session, null)
  const session = await wx.login()
  assert.equal(session.is_new, true)
  assert.notEqual(session.member_id, member_id)
})

test('me and profile', async t => {
  const { wx } = visitor(t)
  const member = await wx.profile({ nickname: '小明', avatar_url: 'https://example.com/a.png' })
  assert.equal(member.nickname, '小明')
  const me = await wx.me()
  assert.equal(me.member.avatar_url, 'https://example.com/a.png')
  const error = await fails(wx.profile({ avatar_url: 'javascript:1' }), 'invalid_request')
  assert.ok(error.detail && error.instance && error.status === 400)
})

test('WeChat being busy is waited out, with a new code', async t => {
  const { phone, wx } = visitor(t)
  await world.fault({ path: '/sns/jscode2session', times: 1, errcode: -1 })
  await wx.request(hello)
  assert.equal(phone.calls.login, 2)
  assert.ok(wx.app.pauses.some(ms => ms >= 1000), wx.app.pauses.join())
})

test('a long Retry-After goes to the page, and nobody asks before it is over', async t => {
  const { phone, wx } = visitor(t)
  await world.fault({ path: '/sns/jscode2session', times: 1, errcode: 45011 })
  const error = await fails(wx.request(hello), 'wechat_rate_limited')
  assert.equal(error.retryAfter, 60)
  for (let i = 0; i < 5; i++) await fails(wx.request(hello), 'wechat_rate_limited')
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/login'), 1)
  wx.app.ahead += 61e3
  assert.equal((await wx.request(hello)).statusCode, 200)
})

test('a blocked user is not logged in again and again', async t => {
  const { phone, wx } = visitor(t)
  await world.fault({ path: '/sns/jscode2session', times: 1, errcode: 40226 })
  for (let i = 0; i < 5; i++) await fails(wx.request(hello), 'login_blocked')
  assert.equal(phone.calls.login, 1)
  assert.ok((await wx.login()).openid, 'unless the page asks')
})

test('a code that WeChat refuses is replaced once', async t => {
  const { phone, wx } = visitor(t)
  await world.fault({ path: '/sns/jscode2session', times: 1, errcode: 40029 })
  await wx.login()
  assert.equal(phone.calls.login, 2)
})

test('offline: an error with a code, tokens kept, and all is well when the network is back', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  phone.online = false
  const error = await fails(wx.request(hello), 'network_error')
  assert.match(error.errMsg, /^request:fail /)
  wx.app.ahead += 3 * HOUR
  await fails(wx.request(hello), 'network_error')
  phone.online = true
  assert.equal((await wx.request(hello)).statusCode, 200)
  assert.equal(phone.calls.login, 1)
})

test('offline before the first login', async t => {
  const { phone, wx } = visitor(t)
  phone.online = false
  await fails(wx.request(hello), 'login_failed')
  phone.online = true
  assert.equal((await wx.request(hello)).statusCode, 200)
})

test('storage that is full: the session lives in memory', async t => {
  const { phone, wx } = visitor(t)
  phone.storageFull = true
  await wx.request(hello)
  wx.app.ahead += 3 * HOUR
  await wx.request(hello)
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/refresh'), 1)
})

test('two instances of one app share what is stored', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  const other = wx.app.createGateway({ baseURL: world.gateway })
  wx.app.ahead += 3 * HOUR
  await wx.request(hello)
  await other.request(hello)
  assert.equal(phone.count('/auth/refresh'), 1)
})

test('a logout in one instance holds in the others: nobody logs in silently', async t => {
  const { phone, wx } = visitor(t)
  const other = wx.app.createGateway({ baseURL: world.gateway })
  await wx.login()
  await other.login()
  await wx.logout()
  await fails(other.request(hello), 'logged_out')
  assert.equal(phone.calls.login, 1)
})

test('a clock that was put back by a year does no harm', async t => {
  const { phone, wx } = visitor(t)
  await wx.request(hello)
  wx.app.ahead -= 365 * 24 * HOUR
  assert.equal((await wx.request(hello)).statusCode, 200)
  assert.equal((await wx.request(hello)).statusCode, 200)
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/refresh'), 1)
})

test('a refresh token that counts as stolen is followed by one login', async t => {
  const own = await gateway('refresh_grace = "0s"')
  t.after(() => own.stop())
  const { phone, wx, launch } = visitor(t, own)
  await wx.login()
  const old = structuredClone(phone.storage)
  wx.app.ahead += 3 * HOUR
  await wx.request(hello)
  phone.storage = old
  const again = launch()
  again.app.ahead += 3 * HOUR
  await Promise.all([again.request(hello), again.request(hello)])
  assert.equal(phone.count('/auth/refresh'), 2)
  assert.equal(phone.calls.login, 2)
})

test('tokens that expire at the gateway: 401, refresh, repeated once', async t => {
  const own = await gateway('access_ttl = "2s"')
  t.after(() => own.stop())
  const { phone, wx } = visitor(t, own)
  await wx.request(hello)
  // The phone's clock stands still, so that it believes in its token longer than the gateway does.
  const token = tokenOf(phone)
  const start = Date.now()
  wx.app.context.now = () => start
  const headers = { authorization: `Bearer ${token}` }
  while ((await fetchText(null, `${own.gateway}/api/hello`, { headers })).status !== 401) {
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  own.service.seen.length = 0
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => wx.request({ url: '/api/orders', method: 'POST', data: { buy: 1 } })),
  )
  assert.ok(answers.every(a => a.statusCode === 200))
  assert.equal(own.service.seen.length, 10, 'each order was placed once')
  assert.equal(phone.count('/auth/refresh'), 1)
  assert.equal(phone.calls.login, 1)
})
