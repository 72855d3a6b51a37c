// What the pages do, against the real gateway, the simulator and the service in Node.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Phone, fetchText } from '../../../sdk/miniprogram/test/shim/wx.mjs'
import { start } from '../../start.mjs'
import { open, read } from './tools.mjs'

const { pages, tabBar } = JSON.parse(read('app.json'))

describe('pages', () => {
  let all
  before(async () => (all = await start('miniprogram', { free: true })))
  after(() => all?.stop())

  /** Somebody with a phone, and the mini program on it; wx.login is WeChat's, that is, the simulator's. */
  function visitor(t, { user, simulator = '' } = {}) {
    const phone = new Phone({ simulator: all.simulator, ...(user && { user }) })
    t.after(() => phone.close())
    return { phone, app: open(phone, { baseURL: all.gateway, simulator }) }
  }

  test('orders: the first look logs in, silently; what is ordered is listed, and is nobody else\'s', async t => {
    const { phone, app } = visitor(t)
    const page = await app.page('orders')
    assert.deepEqual(page.data.orders, [])
    page.type({ detail: { value: 'tea' } })
    await page.place()
    assert.deepEqual([page.data.orders.map(order => order.item), page.data.item], [['tea'], ''])
    await page.place()
    assert.deepEqual(app.toasts, ['What would you like?'])
    assert.equal(phone.calls.login, 1)
    assert.deepEqual((await visitor(t).app.page('orders')).data.orders, [])
  })

  test('login: who is logged in, logout, and login again', async t => {
    const { app } = visitor(t)
    const page = await app.page('login')
    assert.equal(page.data.session, null)
    await page.login()
    const { member_id } = page.data.session
    await page.logout()
    assert.equal(page.data.session, null)
    await app.page('orders')
    assert.deepEqual(app.toasts, ['Log in first.'])
    await page.login()
    assert.equal(page.data.session.member_id, member_id)
    await page.erase()
    await page.login()
    assert.notEqual(page.data.session.member_id, member_id)
  })

  test('profile: nickname and avatar, the picture where others can see it', async t => {
    const { phone, app } = visitor(t)
    const page = await app.page('profile')
    await page.save({ detail: { value: { nickname: '小明' } } })
    phone.files.set('wxfile://tmp.png', Buffer.from('89504e470d0a1a0a', 'hex'))
    await page.chooseAvatar({ detail: { avatarUrl: 'wxfile://tmp.png' } })
    assert.ok(page.data.avatar_url.startsWith(`${all.gateway}/avatars/`), page.data.avatar_url)
    const shown = await fetchText(null, page.data.avatar_url)
    assert.deepEqual([shown.status, shown.headers['content-type']], [200, 'image/png'])
    const again = await app.page('profile')
    assert.deepEqual([again.data.nickname, again.data.avatar_url], ['小明', page.data.avatar_url])
  })

  test('phone: the button\'s code becomes a number; a refusal is nobody\'s fault', async t => {
    const { phone, app } = visitor(t)
    const page = await app.page('phone')
    assert.equal(page.data.phone, '')
    await page.getPhoneNumber({ detail: { errMsg: 'getPhoneNumber:fail user deny' } })
    assert.deepEqual([page.data.phone, app.toasts], ['', []])
    await page.getPhoneNumber({ detail: { code: (await phone.phoneButton()).code } })
    assert.match(page.data.phone, /\d{11}$/)
  })

  test('chat: everybody hears everybody, and knows what is his own', async t => {
    const [one, two] = [await visitor(t).app.page('chat'), await visitor(t).app.page('chat')]
    for (const page of [one, two]) await page.until(({ online }) => online)
    one.type({ detail: { value: 'hello' } })
    one.send()
    for (const page of [one, two]) await page.until(({ lines }) => lines.length === 1)
    assert.deepEqual([one, two].flatMap(({ data }) => data.lines.map(({ text, mine }) => [text, mine])), [['hello', true], ['hello', false]])
    await one.until(({ text }) => text === '')
    one.onHide()
    await one.until(({ online }) => !online)
  })

  test('offline: the user is told, in words', async t => {
    const { phone, app } = visitor(t)
    await app.page('orders')
    phone.online = false
    await app.page('orders')
    assert.deepEqual(app.toasts, ['No connection. Try again.'])
  })

  test('in the developer tools, whose codes the simulator does not know: its own are used', async t => {
    const { phone, app } = visitor(t, { user: 'nobody', simulator: all.simulator })
    await app.page('orders')
    const page = await app.page('phone')
    await page.getPhoneNumber({ detail: {} })
    assert.match(page.data.phone, /\d{11}$/)
    assert.deepEqual([phone.calls.login, app.toasts], [0, []])
  })
})

describe('files', () => {
  const exists = path => existsSync(fileURLToPath(new URL(`../${path}`, import.meta.url)))

  test('each page has its four files, and each tab a page', () => {
    for (const page of pages) for (const ext of ['js', 'json', 'wxml', 'wxss']) assert.ok(exists(`${page}.${ext}`), `${page}.${ext}`)
    for (const { pagePath } of tabBar.list) assert.ok(pages.includes(pagePath), pagePath)
    for (const path of ['project.config.json', 'sitemap.json', ...pages.map(page => `${page}.json`)]) JSON.parse(read(path))
  })

  test('elements are closed, handlers and data exist in the page', () => {
    for (const page of pages) {
      const wxml = read(`${page}.wxml`)
      const script = read(`${page}.js`)
      const open = []
      for (const [, end, name] of wxml.matchAll(/<(\/?)([a-z-]+)/g)) {
        if (end) assert.equal(open.pop(), name, `${page}: </${name}>`)
        else open.push(name)
      }
      assert.deepEqual(open, [], page)
      for (const [, handler] of wxml.matchAll(/bind\w+="(\w+)"/g)) assert.match(script, new RegExp(`^  (async )?${handler}\\(`, 'm'), `${page}: ${handler}`)
      const data = /data: \{(.*)\}/.exec(script)[1]
      for (const [, used] of wxml.matchAll(/\{\{!?(\w+)/g)) {
        assert.ok(used === 'item' || new RegExp(`\\b${used}:`).test(data), `${page}: ${used}`)
      }
    }
  })
})
