// Tokens in cookies that no script of the page can read, in a real Chromium.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ask, begin, logIn, place, visitor } from './place.mjs'

const HOUR = 3600e3
let world
before(async () => (world = await place({ cookie: true })))
after(() => world?.stop())

const hello = { url: '/api/hello' }
const page = ['/page/other?item=7#/top', { cookie: true }]
const ahead = (tab, ms) => tab.evaluate(ms => sessionStorage.setItem('ahead', ms), ms)

async function enter(t) {
  const own = await visitor(t, world)
  const tab = await own.open(...page)
  return { ...own, tab, session: await logIn(tab) }
}

/** As an operator or another device would: the session is over, the browser does not know. */
async function revoke(context) {
  const cookies = await context.cookies()
  const cookie = cookies.map(({ name, value }) => `${name}=${value}`).join('; ')
  const headers = { cookie, origin: world.gateway }
  assert.equal((await fetch(`${world.gateway}/auth/logout`, { method: 'POST', headers })).status, 204)
}

test('the web login: back to the very place, logged in, and no script holds a token', async t => {
  const { tab, context, session } = await enter(t)
  assert.equal(tab.url(), world.gateway + page[0])
  const answer = await ask(tab, hello)
  assert.deepEqual([answer.statusCode, answer.data.openid], [200, session.openid])
  assert.deepEqual(await tab.evaluate(() => window.heard), ['in'])
  const kept = await tab.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]))
  const cookies = await context.cookies()
  assert.equal(cookies.length, 2)
  for (const { httpOnly, value } of cookies) assert.ok(httpOnly && !kept.includes(value))
  assert.ok(!kept.includes('eyJ'), kept)
})

test('a reload and another tab keep the session', async t => {
  const { tab, open, session } = await enter(t)
  await tab.reload()
  await begin(tab)
  assert.equal((await ask(tab, hello)).data.openid, session.openid)
  const other = await open(...page)
  assert.equal((await ask(other, hello)).data.openid, session.openid)
})

test('without a login a request says so, and asks nobody', async t => {
  const { open, asked } = await visitor(t, world)
  const tab = await open(...page)
  assert.equal((await ask(tab, hello)).code, 'login_required')
  assert.deepEqual(asked, [])
})

test('requests that meet an expired token share one refresh', async t => {
  const { tab, count, session } = await enter(t)
  const before = count('/auth/refresh')
  await ahead(tab, 3 * HOUR)
  const answers = await Promise.all(Array.from({ length: 8 }, () => ask(tab, hello)))
  assert.deepEqual(answers.map(answer => answer.data.openid), Array(8).fill(session.openid))
  assert.equal(count('/auth/refresh'), before + 1)
})

test('two tabs that refresh at the same moment both go on', async t => {
  const { tab, open } = await enter(t)
  const other = await open(...page)
  for (const each of [tab, other]) await ahead(each, 3 * HOUR)
  const answers = await Promise.all([tab, other].map(each => ask(each, hello)))
  assert.deepEqual(answers.map(answer => answer.statusCode), [200, 200])
})

test('a session that was revoked, and cookies that are gone: login_required, and a login helps', async t => {
  for (const end of [revoke, context => context.clearCookies()]) {
    const { tab, context } = await enter(t)
    await end(context)
    assert.equal((await ask(tab, hello)).code, 'login_required')
    assert.equal(await tab.evaluate(() => window.wx.session), null)
    await tab.waitForFunction(() => window.heard.join() === 'in,out')
    assert.ok((await logIn(tab)).openid)
  }
})

test('logout takes the cookies away', async t => {
  const { tab, context } = await enter(t)
  await tab.evaluate(() => window.wx.logout())
  assert.deepEqual(await context.cookies(), [])
  assert.equal((await ask(tab, hello)).code, 'logged_out')
})

test('upload, download and fetch carry the cookie', async t => {
  const { tab, session } = await enter(t)
  const openids = await tab.evaluate(async () => {
    const up = await window.wx.upload({ url: '/api/up', file: new Blob(['x']), name: 'file' })
    const down = await window.wx.download({ url: '/api/down' })
    const fetched = await window.wx.fetch('/api/fetch')
    return [JSON.parse(up.data), JSON.parse(await down.blob.text()), await fetched.json()].map(answer => answer.openid)
  })
  assert.deepEqual(openids, Array(3).fill(session.openid))
})

test('a socket: the service sees who calls; a lost one comes back, in a new session after the old one has ended', async t => {
  const { tab, context, session } = await enter(t)
  world.service.handshakes.length = 0
  const said = await tab.evaluate(async () => {
    const socket = (window.socket = window.wx.connectSocket({ url: '/api/ws?room=1' }))
    window.closes = []
    socket.onClose(({ code, reason, reconnecting }) => window.closes.push([code, reason, reconnecting].join()))
    await new Promise(resolve => socket.onOpen(resolve))
    window.opened = new Promise(resolve => socket.onOpen(resolve))
    const message = new Promise(resolve => socket.onMessage(resolve))
    socket.send({ data: 'hi' })
    return (await message).data
  })
  assert.equal(said, 'echo hi')
  assert.deepEqual(world.service.handshakes, [{ url: '/api/ws?room=1', openid: session.openid, authorization: undefined }])
  world.service.talks.forEach(talk => talk.terminate())
  await tab.evaluate(() => window.opened)
  assert.equal(world.service.handshakes.length, 2)
  await revoke(context)
  await tab.waitForFunction(() => window.closes.length >= 3)
  const closes = await tab.evaluate(() => window.closes)
  assert.deepEqual(closes.slice(1), ['4001,token_revoked,true', '1006,login:fail login_required,false'])
})

test('a page of another origin of the same site carries the cookies, too', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open(...page, world.elsewhere)
  const { openid } = await logIn(tab)
  assert.ok(tab.url().startsWith(world.elsewhere))
  assert.equal((await ask(tab, { ...hello, method: 'POST', data: {} })).data.openid, openid)
  const before = count('/auth/refresh')
  await ahead(tab, 3 * HOUR)
  assert.equal((await ask(tab, hello)).data.openid, openid)
  assert.equal(count('/auth/refresh'), before + 1)
  await tab.evaluate(() => window.wx.logout())
  assert.equal((await ask(tab, hello)).code, 'logged_out')
})

test('without cookies there is no socket: a browser sends no token with a handshake', async t => {
  const { open } = await visitor(t, world)
  const tab = await open('/page/', {})
  const code = await tab.evaluate(() => {
    try {
      window.wx.connectSocket({ url: '/api/ws' })
    } catch (error) {
      return error.code
    }
  })
  assert.equal(code, 'cookie_needed')
})
