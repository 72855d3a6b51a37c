// Requests, uploads and downloads of a page, in a real Chromium.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ask, logIn, place, visitor } from './place.mjs'

let world
before(async () => (world = await place()))
after(() => world?.stop())

async function page(t) {
  const own = await visitor(t, world)
  const tab = await own.open()
  await logIn(tab)
  return { ...own, tab }
}

test('request passes method, data, header and query on', async t => {
  const { tab } = await page(t)
  const post = await ask(tab, { url: '/api/a?b=c', method: 'PUT', data: { x: '你好' } })
  assert.deepEqual([post.data.method, post.data.path, post.data.text, post.data.type], ['PUT', '/api/a?b=c', '{"x":"你好"}', 'application/json'])
  assert.equal((await ask(tab, { url: '/api/a', data: { q: 1 } })).data.path, '/api/a?q=1')
  const form = { url: '/api/a', method: 'POST', data: { a: '1 2' }, header: { 'Content-Type': 'application/x-www-form-urlencoded' } }
  assert.equal((await ask(tab, form)).data.text, 'a=1+2')
})

test('an answer of the service is an answer; a refusal of the gateway is an error with its code', async t => {
  const { tab } = await page(t)
  assert.equal((await ask(tab, { url: '/api/teapot' })).statusCode, 418)
  const error = await ask(tab, { url: '/nowhere' })
  assert.deepEqual([error.name, error.code, error.status], ['GatewayError', 'route_not_found', 404])
  assert.equal((await ask(tab, { url: 'https://evil.example/' })).code, 'foreign_url')
})

test('fetch: a Response of the service, an error of the gateway, and an end when its signal says so', async t => {
  const { tab } = await page(t)
  const seen = await tab.evaluate(async () => {
    const good = await window.wx.fetch('/api/a', { method: 'post', body: JSON.stringify({ x: 1 }), headers: { 'Content-Type': 'application/json' } })
    const stream = await (await window.wx.fetch('/api/stream')).text()
    const bad = await window.wx.fetch('/nowhere').catch(error => error.code)
    const control = new AbortController()
    const hung = window.wx.fetch('/api/hang', { signal: control.signal }).catch(error => error.code)
    control.abort()
    return { status: good.status, isResponse: good instanceof Response, body: await good.json(), stream, bad, hung: await hung }
  })
  assert.deepEqual([seen.status, seen.isResponse, seen.stream, seen.bad, seen.hung], [200, true, 'one two', 'route_not_found', 'aborted'])
  assert.deepEqual([seen.body.method, seen.body.text], ['POST', '{"x":1}'])
  assert.ok(seen.body.openid)
  world.service.held.length = 0
})

test('enableChunked: chunks arrive', async t => {
  const { tab } = await page(t)
  const text = await tab.evaluate(async () => {
    const task = window.wx.request({ url: '/api/stream', enableChunked: true })
    let text = ''
    task.onChunkReceived(({ data }) => (text += new TextDecoder().decode(data)))
    await task
    return text
  })
  assert.equal(text, 'one two')
})

test('upload: a form with the file, and its progress', async t => {
  const { tab } = await page(t)
  const seen = await tab.evaluate(async () => {
    const file = new File([new Uint8Array(200000)], 'a.png', { type: 'image/png' })
    const task = window.wx.upload({ url: '/api/up', file, name: 'file', formData: { album: '7' } })
    const progress = []
    task.onProgressUpdate(event => progress.push(event.progress))
    const { data, statusCode } = await task
    const refused = await window.wx.upload({ url: '/nowhere', file, name: 'file' }).catch(error => error.code)
    return { ...JSON.parse(data), statusCode, last: progress.pop(), refused }
  })
  assert.ok(seen.bytes > 200000 && seen.openid)
  assert.match(seen.type, /^multipart\/form-data/)
  assert.deepEqual([seen.statusCode, seen.last, seen.refused], [200, 100, 'route_not_found'])
})

test('download: a blob, and its progress; a refusal is an error', async t => {
  const { tab } = await page(t)
  const seen = await tab.evaluate(async () => {
    const task = window.wx.download({ url: '/api/file' })
    let written = 0
    task.onProgressUpdate(event => (written = event.totalBytesWritten))
    const { blob } = await task
    const refused = await window.wx.download({ url: '/nowhere' }).catch(error => error.code)
    return { size: blob.size, written, refused }
  })
  assert.deepEqual(seen, { size: 300000, written: 300000, refused: 'route_not_found' })
})

test('abort and time-out', async t => {
  const { tab } = await page(t)
  const seen = await tab.evaluate(async () => {
    const task = window.wx.request({ url: '/api/hang' })
    task.abort()
    const late = window.wx.request({ url: '/api/hang', timeout: 50 })
    return [await task.catch(error => error.code), await late.catch(error => error.code)]
  })
  assert.deepEqual(seen, ['aborted', 'timeout'])
  world.service.held.length = 0
})

test('offline: network_error; the session is kept, and all is well when the network is back', async t => {
  const { tab, context, count } = await page(t)
  await context.setOffline(true)
  assert.equal((await ask(tab, { url: '/api/a' })).code, 'network_error')
  await context.setOffline(false)
  assert.equal((await ask(tab, { url: '/api/a' })).statusCode, 200)
  assert.equal(count('/auth/login'), 1)
})

test('a caller above the limit of a route waits as long as the gateway says, and goes on', async t => {
  const { tab } = await page(t)
  const statuses = []
  tab.on('response', response => response.url().includes('/limited/') && statuses.push(response.status()))
  await ask(tab, { url: '/limited/a', method: 'POST' })
  assert.equal((await ask(tab, { url: '/limited/b', method: 'POST' })).statusCode, 200)
  assert.deepEqual(statuses, [200, 429, 200])
})

test('callbacks: success, fail and complete', async t => {
  const { tab } = await page(t)
  const seen = await tab.evaluate(async () => {
    const seen = []
    await new Promise(complete => window.wx.request({ url: '/api/a', success: r => seen.push(r.statusCode), complete }))
    await new Promise(complete => window.wx.request({ url: '/nowhere', fail: e => seen.push(e.code), complete }))
    return seen
  })
  assert.deepEqual(seen, [200, 'route_not_found'])
})
