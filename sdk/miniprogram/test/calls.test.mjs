// Requests, uploads, downloads and callContainer: what goes out, what comes back, what goes wrong.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { gateway } from './shim/world.mjs'
import { Phone, fetchText } from './shim/wx.mjs'

let world
before(async () => (world = await gateway()))
after(() => world.stop())

function visitor(t, options = {}) {
  const phone = new Phone(world)
  t.after(() => phone.close())
  const app = phone.launch()
  const wx = app.createGateway({ baseURL: world.gateway, ...options })
  return { phone, app, wx: Object.assign(wx, { app }) }
}

const fails = (promise, code) =>
  promise.then(
    () => assert.fail(`succeeded instead of ${code}`),
    error => (assert.equal(error.code, code), error),
  )

const problem = (status, code, header = {}) => ({
  statusCode: status,
  header,
  data: { type: `urn:wxgate:problem:${code}`, title: 't', status, detail: 'd', instance: 'i', code },
})

async function revoke(phone) {
  const token = [...phone.storage.values()][0].answer.access_token
  const headers = { authorization: `Bearer ${token}` }
  assert.equal((await fetchText(null, `${world.gateway}/auth/logout`, { method: 'POST', headers })).status, 204)
}

test('request passes method, data, header and query on, as wx.request does', async t => {
  const { wx } = visitor(t)
  const post = await wx.request({ url: '/api/a?b=c', method: 'PUT', data: { x: '你好' }, header: { 'X-Own': '1' } })
  assert.equal(post.data.method, 'PUT')
  assert.equal(post.data.path, '/api/a?b=c')
  assert.equal(post.data.text, '{"x":"你好"}')
  const get = await wx.request({ url: `${world.gateway}/api/a`, data: { q: 1 } })
  assert.equal(get.data.path, '/api/a?q=1')
  assert.ok(get.header && get.cookies && get.errMsg === 'request:ok')
})

test('an answer of the service is an answer, whatever its status', async t => {
  const { wx } = visitor(t)
  assert.equal((await wx.request({ url: '/api/teapot' })).statusCode, 418)
})

test('a refusal of the gateway is an error with its code', async t => {
  const { wx } = visitor(t)
  const error = await fails(wx.request({ url: '/nowhere' }), 'route_not_found')
  assert.equal(error.status, 404)
  assert.ok(error.instance && error.detail)
  assert.match(error.errMsg, /^request:fail route_not_found/)
})

test('a refusal is read whatever form the page asked for', async t => {
  const { wx } = visitor(t)
  await fails(wx.request({ url: '/nowhere', responseType: 'arraybuffer' }), 'route_not_found')
  await fails(wx.request({ url: '/nowhere', dataType: 'text' }), 'route_not_found')
})

test('the token goes to nobody else', async t => {
  const { phone, wx } = visitor(t)
  for (const url of ['https://evil.example/x', `${world.gateway}.evil.example/x`, `${world.gateway}@evil.example/`, 'javascript:x']) {
    await fails(wx.request({ url }), 'foreign_url')
  }
  assert.equal(phone.requests.length, 0)
})

test('callbacks: success, fail and complete, and no rejection that nobody handles', async t => {
  const { wx } = visitor(t)
  const seen = []
  await new Promise(complete => wx.request({ url: '/api/a', success: r => seen.push(r.statusCode), complete }))
  await new Promise(complete => wx.request({ url: '/nowhere', fail: e => seen.push(e.code), complete }))
  await new Promise(complete => wx.login({ success: s => seen.push(typeof s.openid), complete }))
  await new Promise(complete => wx.me({ success: m => seen.push(typeof m.member.openid), complete }))
  assert.deepEqual(seen, [200, 'route_not_found', 'string', 'string'])
})

test('complete is called once', async t => {
  const { wx } = visitor(t)
  let completed = 0
  await wx.request({ url: '/api/a', complete: () => completed++ })
  await new Promise(setImmediate)
  assert.equal(completed, 1)
})

test('thirty requests at once: never more than ten on the wire, all answered', async t => {
  const { phone, wx } = visitor(t)
  const answers = await Promise.all(Array.from({ length: 30 }, (_, i) => wx.request({ url: `/api/${i}` })))
  assert.deepEqual(answers.map(a => a.data.path), Array.from({ length: 30 }, (_, i) => `/api/${i}`))
  assert.equal(phone.mostAtOnce, 10)
})

test('a refresh goes ahead of the requests that wait for a place', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  const held = Array.from({ length: 9 }, () => wx.request({ url: '/api/hang' }))
  while (world.service.held.length < 9) await new Promise(setImmediate)
  await revoke(phone)
  const rest = Array.from({ length: 20 }, () => wx.request({ url: '/api/a' }))
  await Promise.all(rest)
  world.service.held.splice(0).forEach(response => response.end('{}'))
  await Promise.all(held)
  assert.equal(phone.calls.login, 2)
})

test('abort: under way, in the queue, and during a login', async t => {
  const { phone, wx } = visitor(t)
  const early = wx.request({ url: '/api/never' })
  early.abort()
  const error = await fails(early, 'aborted')
  assert.equal(error.errMsg, 'request:fail abort')
  const running = Array.from({ length: 10 }, () => wx.request({ url: '/api/hang' }))
  while (world.service.held.length < 10) await new Promise(setImmediate)
  const queued = wx.request({ url: '/api/queued' })
  await new Promise(setImmediate)
  queued.abort()
  await fails(queued, 'aborted')
  running.forEach(task => task.abort())
  await Promise.all(running.map(task => fails(task, 'aborted')))
  world.service.held.length = 0
  assert.equal((await wx.request({ url: '/api/after' })).statusCode, 200)
  assert.equal(phone.count('/never') + phone.count('/queued'), 0)
})

test('parameters that WeChat throws at cost no place', async t => {
  const { app, wx } = visitor(t)
  await wx.login()
  const { request } = app.wx
  app.wx.request = () => {
    throw new TypeError('bad parameter')
  }
  for (let i = 0; i < 12; i++) await assert.rejects(wx.request({ url: '/api/a' }))
  app.wx.request = request
  assert.equal((await wx.request({ url: '/api/a' })).statusCode, 200)
})

test('a time-out has its code', async t => {
  const { wx } = visitor(t)
  await fails(wx.request({ url: '/api/hang', timeout: 50 }), 'timeout')
  world.service.held.length = 0
})

test('requests of an app that goes to the background: reading is repeated when it is back, writing is not', async t => {
  const { app, wx } = visitor(t)
  await wx.login()
  const get = wx.request({ url: '/api/hang' })
  const post = wx.request({ url: '/api/hang', method: 'POST' })
  const marked = wx.request({ url: '/api/hang', method: 'POST', idempotent: true })
  while (world.service.held.length < 3) await new Promise(setImmediate)
  world.service.held.length = 0
  app.hide()
  await fails(post, 'interrupted')
  app.show()
  while (world.service.held.length < 2) await new Promise(setImmediate)
  world.service.held.splice(0).forEach(response => response.end('{}'))
  assert.equal((await get).statusCode, 200)
  assert.equal((await marked).statusCode, 200)
})

test('a login that the background interrupts goes on afterwards: one session', async t => {
  const { phone, app, wx } = visitor(t)
  const before = await world.exchanges()
  const request = wx.request({ url: '/api/a' })
  while (phone.count('/auth/login') < 1) await new Promise(setImmediate)
  app.hide()
  await new Promise(setImmediate)
  app.show()
  assert.equal((await request).statusCode, 200)
  assert.equal(phone.calls.login, 1)
  assert.equal((await world.exchanges()) - before, 1)
})

test('429 with Retry-After: the call waits and is repeated once', async t => {
  const { phone, app, wx } = visitor(t)
  await wx.login()
  phone.spoil('/api/limited', { answer: problem(429, 'rate_limited', { 'retry-after': '3' }) })
  assert.equal((await wx.request({ url: '/api/limited', method: 'POST' })).statusCode, 200)
  assert.equal(phone.count('/api/limited'), 2)
  assert.ok(app.pauses.some(ms => ms >= 3000 && ms <= 3750), app.pauses.join())
  for (let i = 0; i < 2; i++) phone.spoil('/api/limited', { answer: problem(429, 'rate_limited', { 'Retry-After': '3' }) })
  const error = await fails(wx.request({ url: '/api/limited' }), 'rate_limited')
  assert.equal(error.retryAfter, 3)
  phone.spoil('/api/limited', { answer: problem(429, 'rate_limited', { 'Retry-After': '3600' }) })
  await fails(wx.request({ url: '/api/limited' }), 'rate_limited')
})

test('a caller above the limit of a route waits as long as the gateway says, and goes on', async t => {
  const phone = new Phone(world)
  t.after(() => phone.close())
  const wx = phone.launch({ patient: true }).createGateway({ baseURL: world.gateway })
  await wx.request({ url: '/limited/a', method: 'POST' })
  assert.equal((await wx.request({ url: '/limited/b', method: 'POST' })).statusCode, 200)
  const seen = path => phone.requests.filter(r => r.path === path).map(r => r.status)
  assert.deepEqual([seen('/limited/a'), seen('/limited/b')], [[200], [429, 200]])
  assert.equal(world.service.seen.filter(s => s.path === '/limited/b').length, 1, 'the service saw it once')
})

test('a service that is being restarted: 503 of the gateway is waited out', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  await world.service.stop()
  const request = wx.request({ url: '/api/a', method: 'POST' })
  while (!phone.requests.some(r => r.path === '/api/a' && r.status === 503)) await new Promise(setImmediate)
  await world.service.start()
  // The gateway remembers for a moment that the service was away.
  const answer = await request.catch(error => error)
  assert.ok(answer.statusCode === 200 || answer.code === 'upstream_unavailable')
  assert.equal(phone.requests.filter(r => r.path === '/api/a').length, 2)
})

test('a 401 of the service itself is an answer', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  phone.spoil('/api/own', { answer: { statusCode: 401, data: { error: 'wrong PIN' } } })
  assert.equal((await wx.request({ url: '/api/own' })).statusCode, 401)
  assert.equal(phone.calls.login, 1)
})

test('enableChunked: chunks arrive; those of a refusal do not', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  await revoke(phone)
  const task = wx.request({ url: '/api/stream', enableChunked: true })
  let text = ''
  task.onChunkReceived(({ data }) => (text += Buffer.from(data)))
  await task
  assert.equal(text, 'one two')
})

test('upload: form data, progress, and a repeat after a revoked session', async t => {
  const { phone, wx } = visitor(t)
  phone.files.set('wxfile://a.png', Buffer.alloc(200000, 'p'))
  await wx.login()
  await revoke(phone)
  const task = wx.upload({ url: '/api/up', filePath: 'wxfile://a.png', name: 'file', formData: { album: '7' } })
  const seen = []
  task.onProgressUpdate(({ progress }) => seen.push(progress))
  const answer = await task
  assert.equal(typeof answer.data, 'string')
  assert.ok(JSON.parse(answer.data).bytes > 200000)
  assert.match(JSON.parse(answer.data).type, /^multipart\/form-data/)
  assert.equal(seen.at(-1), 100)
  assert.equal(phone.calls.login, 2)
  phone.online = false
  await fails(wx.upload({ url: '/api/up', filePath: 'wxfile://a.png', name: 'file' }), 'network_error')
})

test('upload: a refusal is an error', async t => {
  const { phone, wx } = visitor(t)
  phone.files.set('wxfile://a', Buffer.from('a'))
  await fails(wx.upload({ url: '/nowhere', filePath: 'wxfile://a', name: 'file' }), 'route_not_found')
})

test('download: file, progress, and a repeat after a revoked session', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  await revoke(phone)
  const task = wx.download({ url: '/api/file' })
  let written = 0
  task.onProgressUpdate(({ totalBytesWritten }) => (written = totalBytesWritten))
  const { tempFilePath, statusCode } = await task
  assert.equal(statusCode, 200)
  assert.equal(phone.files.get(tempFilePath).length, 300000)
  assert.equal(written, 300000)
  assert.equal(phone.calls.login, 2)
  const { filePath } = await wx.download({ url: '/api/file', filePath: 'wxfile://usr/f' })
  assert.equal(filePath, 'wxfile://usr/f')
})

test('download: a refusal is an error, not a file', async t => {
  const { wx } = visitor(t)
  await fails(wx.download({ url: '/nowhere' }), 'route_not_found')
  const task = wx.download({ url: '/api/hang' })
  await new Promise(setImmediate)
  task.abort()
  await fails(task, 'aborted')
})

test('callContainer: parameters and result of wx.cloud.callContainer', async t => {
  const { wx } = visitor(t, { services: { orders: '/api/orders' } })
  const answer = await wx.callContainer({
    config: { env: 'prod-1' },
    path: '/count?x=1',
    method: 'POST',
    header: { 'X-WX-SERVICE': 'orders' },
    data: { action: 'inc' },
  })
  assert.equal(answer.statusCode, 200)
  assert.equal(answer.errMsg, 'cloud.callContainer:ok')
  assert.equal(typeof answer.callID, 'string')
  assert.equal(answer.data.path, '/api/orders/count?x=1')
  assert.ok(answer.data.openid)
  assert.equal((await wx.callContainer({ path: '/api/x' })).data.method, 'GET')
  const seen = []
  await new Promise(complete => wx.callContainer({ path: '/nowhere', fail: e => seen.push(e), complete }))
  assert.match(seen[0].errMsg, /^cloud.callContainer:fail route_not_found/)
  assert.equal(seen[0].errCode, -1)
  const late = await fails(wx.callContainer({ path: '/api/hang', timeout: 30 }), 'timeout')
  assert.equal(late.errCode, 102002)
})
