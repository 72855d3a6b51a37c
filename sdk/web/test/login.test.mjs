// The web login and the life of a session, in a real Chromium.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ACCOUNT, WEBSITE, ask, begin, logIn, place, visitor } from './place.mjs'

const HOUR = 3600e3
let world
before(async () => (world = await place()))
after(() => world?.stop())

const hello = { url: '/api/hello' }
const ahead = (tab, ms) => tab.evaluate(ms => sessionStorage.setItem('ahead', ms), ms)
const stored = tab => tab.evaluate(() => Object.entries(localStorage).map(([, value]) => JSON.parse(value))[0])

async function revoke(tab) {
  const { access_token } = (await stored(tab)).answer
  const headers = { authorization: `Bearer ${access_token}` }
  assert.equal((await fetch(`${world.gateway}/auth/logout`, { method: 'POST', headers })).status, 204)
}

for (const [appid, kind] of [[ACCOUNT, 'an official account'], [WEBSITE, 'a website']]) {
  test(`the web login of ${kind}: away to WeChat, back to the very place, and the ticket is gone from the address`, async t => {
    const { open, count } = await visitor(t, world)
    const tab = await open('/page/other?item=7&q=a|b#/top', { appid })
    const { openid, is_new } = await logIn(tab)
    assert.ok(openid && typeof is_new === 'boolean')
    const url = new URL(tab.url())
    assert.deepEqual([url.pathname, url.searchParams.get('item'), url.searchParams.get('q'), url.hash], ['/page/other', '7', 'a|b', '#/top'])
    assert.ok(!tab.url().includes('ticket'))
    const answer = await ask(tab, hello)
    assert.deepEqual([answer.statusCode, answer.data.openid, answer.data.authorization], [200, openid, undefined])
    assert.equal(count('/auth/login'), 1)
    assert.deepEqual(await tab.evaluate(() => window.heard), ['in'])
  })
}

test('without a login a request says so, and the page stays where it is', async t => {
  const { open, asked } = await visitor(t, world)
  const tab = await open()
  const error = await ask(tab, hello)
  assert.deepEqual([error.name, error.code], ['GatewayError', 'login_required'])
  assert.equal(tab.url(), `${world.gateway}/page/`)
  assert.deepEqual(asked, [])
  assert.equal(await tab.evaluate(() => window.wx.session), null)
})

test('the requests of a page that has just come back wait for the one login', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open()
  const back = tab.waitForURL(url => url.searchParams.has('ticket'), { waitUntil: 'commit' })
  await tab.evaluate(() => void window.wx.login())
  await back
  await begin(tab)
  const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => ask(tab, { url: `/api/${i}` })))
  assert.deepEqual(answers.map(answer => answer.statusCode), Array(12).fill(200))
  assert.equal(count('/auth/login'), 1)
})

test('a reload and another tab keep the session', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open()
  const { openid } = await logIn(tab)
  await tab.reload()
  await begin(tab)
  assert.equal((await ask(tab, hello)).data.openid, openid)
  const other = await open()
  assert.equal((await ask(other, hello)).data.openid, openid)
  assert.equal(count('/auth/login'), 1)
})

test('autoLogin: the first request goes to WeChat by itself, and the page is back with a session', async t => {
  const { open } = await visitor(t, world)
  const tab = await open('/page/', { autoLogin: true })
  const back = tab.waitForURL(url => url.searchParams.has('ticket'), { waitUntil: 'commit' })
  await tab.evaluate(() => void window.wx.request({ url: '/api/hello' }))
  await back
  await begin(tab)
  assert.equal((await ask(tab, hello)).statusCode, 200)
})

test('autoLogin: sessions that end at once do not send the browser in circles', async t => {
  const { open } = await visitor(t, world)
  const tab = await open('/page/', { autoLogin: true })
  await logIn(tab)
  await revoke(tab)
  assert.equal((await ask(tab, hello)).code, 'login_required')
})

test('who refuses comes back: access_denied, until the page asks again', async t => {
  const { open } = await visitor(t, world)
  const tab = await open('/page/', { autoLogin: true })
  await world.sits('alice', true)
  const back = tab.waitForURL(url => url.searchParams.has('error'), { waitUntil: 'commit' })
  await tab.evaluate(() => void window.wx.login())
  await back
  await begin(tab)
  assert.equal((await ask(tab, hello)).code, 'access_denied')
  assert.equal(tab.url(), `${world.gateway}/page/`)
  await world.sits('alice')
  assert.ok((await logIn(tab)).openid)
})

test('a ticket that this tab has not asked for is nobody\'s', async t => {
  const mallory = await visitor(t, world, 'mallory')
  const tab = await mallory.open()
  let ticket
  await tab.route('**/auth/login', route => ((ticket = route.request().postDataJSON().ticket), route.abort()))
  const back = tab.waitForURL(url => url.searchParams.has('ticket'), { waitUntil: 'commit' })
  await tab.evaluate(() => void window.wx.login())
  await back
  await begin(tab)
  await tab.evaluate(() => window.wx.ready)
  assert.ok(ticket)
  const victim = await visitor(t, world, 'alice')
  const page = await victim.open(`/page/?ticket=${ticket}`)
  assert.equal((await ask(page, hello)).code, 'login_required')
  assert.deepEqual(victim.asked, [])
})

test('a login whose answer is lost: the page asks again, and nobody is sent in circles', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open('/page/', { autoLogin: true })
  let lost = 0
  await tab.route('**/auth/login', async route => {
    if (lost++) return route.continue()
    await route.fetch()
    await route.abort('connectionreset')
  })
  const back = tab.waitForURL(url => url.searchParams.has('ticket'), { waitUntil: 'commit' })
  await tab.evaluate(() => void window.wx.login())
  await back
  await begin(tab)
  assert.equal(await tab.evaluate(() => window.wx.ready), null)
  assert.equal(count('/auth/login'), 2)
  assert.ok((await logIn(tab)).openid)
})

test('requests that meet an expired token share one refresh, whose lost answer is asked for again', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open()
  await logIn(tab)
  const { id } = (await tab.evaluate(() => window.wx.me())).session
  await ahead(tab, 3 * HOUR)
  let lost = 0
  await tab.route('**/auth/refresh', async route => {
    if (lost++) return route.continue()
    await route.fetch()
    await route.abort('connectionreset')
  })
  const answers = await Promise.all(Array.from({ length: 8 }, () => ask(tab, hello)))
  assert.deepEqual(answers.map(answer => answer.statusCode), Array(8).fill(200))
  assert.equal(count('/auth/refresh'), 2)
  assert.equal((await tab.evaluate(() => window.wx.me())).session.id, id)
})

test('two tabs that refresh at the same moment both go on, in one session', async t => {
  const { open } = await visitor(t, world)
  const [one, two] = [await open(), await open()]
  await logIn(one)
  await two.reload()
  await begin(two)
  for (const tab of [one, two]) await ahead(tab, 3 * HOUR)
  const answers = await Promise.all([one, two].map(tab => ask(tab, hello)))
  assert.deepEqual(answers.map(answer => answer.statusCode), [200, 200])
  const [a, b] = await Promise.all([one, two].map(tab => tab.evaluate(() => window.wx.me())))
  assert.equal(a.session.id, b.session.id)
})

test('a session that was revoked: login_required, and the page hears that nobody is logged in', async t => {
  const { open } = await visitor(t, world)
  const tab = await open()
  await logIn(tab)
  await revoke(tab)
  assert.equal((await ask(tab, hello)).code, 'login_required')
  assert.equal(await tab.evaluate(() => window.wx.session), null)
  await tab.waitForFunction(() => window.heard.join() === 'in,out')
  assert.ok((await logIn(tab)).openid)
})

test('logout ends the session there, here and in the other tab', async t => {
  const { open } = await visitor(t, world)
  const [tab, other] = [await open(), await open()]
  await logIn(tab)
  await other.reload()
  await begin(other)
  const { access_token } = (await stored(tab)).answer
  await tab.evaluate(() => window.wx.logout())
  const headers = { authorization: `Bearer ${access_token}` }
  assert.equal((await fetch(`${world.gateway}/api/hello`, { headers })).status, 401)
  for (const each of [tab, other]) assert.equal((await ask(each, hello)).code, 'logged_out')
  assert.ok((await logIn(tab)).openid)
})

test('a page of another origin, which the gateway lists, logs in, asks and refreshes as others do', async t => {
  const { open, count } = await visitor(t, world)
  const tab = await open('/page/other', {}, world.elsewhere)
  const { openid } = await logIn(tab)
  assert.equal(tab.url(), `${world.elsewhere}/page/other`)
  assert.equal((await ask(tab, { ...hello, method: 'POST', data: { a: 1 } })).data.openid, openid)
  await ahead(tab, 3 * HOUR)
  assert.equal((await ask(tab, hello)).data.openid, openid)
  assert.deepEqual([count('/auth/login'), (await tab.evaluate(() => window.wx.me())).member.openid], [1, openid])
})

test('me, profile and erase', async t => {
  const { open } = await visitor(t, world)
  const tab = await open()
  await logIn(tab)
  const member = await tab.evaluate(() => window.wx.profile({ nickname: '小明' }))
  assert.equal(member.nickname, '小明')
  assert.equal((await tab.evaluate(() => window.wx.me())).member.nickname, '小明')
  await tab.evaluate(() => window.wx.erase())
  assert.equal(await tab.evaluate(() => window.wx.session), null)
  assert.equal((await logIn(tab)).is_new, true)
})
