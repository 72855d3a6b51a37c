// connectSocket against a small server that checks the token of the handshake with the gateway.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import { after, before, test } from 'node:test'
import { WebSocketServer } from 'ws'
import { demo } from './shim/world.mjs'
import { Phone, fetchText } from './shim/wx.mjs'

let world
before(async () => (world = await demo()))
after(() => world.stop())

/** In front of the gateway: passes /auth on, and takes sockets of those whom /auth/me knows. */
async function front(t) {
  const handshakes = []
  const sockets = new WebSocketServer({ noServer: true })
  const server = http.createServer(async (request, response) => {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const { method, headers } = request
    const answer = await fetchText(null, world.gateway + request.url, { method, headers, body: Buffer.concat(chunks) })
    response.writeHead(answer.status, answer.headers)
    response.end(answer.body)
  })
  server.on('upgrade', async (request, socket, head) => {
    const headers = { authorization: request.headers.authorization ?? '' }
    const { status } = await fetchText(null, `${world.gateway}/auth/me`, { headers })
    handshakes.push({ status, token: headers.authorization, url: request.url })
    if (status !== 200) return socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n')
    sockets.handleUpgrade(request, socket, head, ws => {
      sockets.emit('connection', ws)
      ws.on('message', data => ws.send(`echo ${data}`))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => (sockets.clients.forEach(ws => ws.terminate()), server.closeAllConnections(), server.close()))
  const phone = new Phone(world)
  t.after(() => phone.close())
  const app = phone.launch()
  const wx = app.createGateway({ baseURL: `http://127.0.0.1:${server.address().port}` })
  const token = () => [...phone.storage.values()][0].answer.access_token
  return { phone, app, wx, sockets, handshakes, token }
}

const event = (socket, name) => new Promise(resolve => socket[`on${name}`](resolve))

test('a socket carries the token on its handshake, logging in first', async t => {
  const { phone, wx, handshakes, token } = await front(t)
  const socket = wx.connectSocket({ url: '/ws?room=1' })
  await event(socket, 'Open')
  socket.send({ data: 'hi' })
  assert.equal((await event(socket, 'Message')).data, 'echo hi')
  assert.deepEqual(handshakes, [{ status: 200, token: `Bearer ${token()}`, url: '/ws?room=1' }])
  assert.equal(phone.calls.login, 1)
  socket.close()
  const { code, reconnecting } = await event(socket, 'Close')
  assert.deepEqual([code, reconnecting], [1000, false])
})

test('a lost socket is made again, after a pause', async t => {
  const { app, wx, sockets, handshakes } = await front(t)
  const socket = wx.connectSocket({ url: '/ws' })
  await event(socket, 'Open')
  const again = event(socket, 'Open')
  sockets.clients.forEach(ws => ws.terminate())
  const { reconnecting } = await event(socket, 'Close')
  assert.equal(reconnecting, true)
  await again
  assert.equal(handshakes.length, 2)
  assert.ok(app.pauses.some(ms => ms >= 1000 && ms <= 1250))
})

test('a session that was revoked: the socket comes back with another token', async t => {
  const { phone, wx, sockets, handshakes, token } = await front(t)
  const socket = wx.connectSocket({ url: '/ws' })
  await event(socket, 'Open')
  const old = token()
  const headers = { authorization: `Bearer ${old}` }
  await fetchText(null, `${world.gateway}/auth/logout`, { method: 'POST', headers })
  const again = event(socket, 'Open')
  sockets.clients.forEach(ws => ws.close(1008))
  await again
  assert.notEqual(token(), old)
  assert.equal(handshakes.at(-1).status, 200)
  assert.equal(phone.calls.login, 2)
})

test('a handshake that is refused: the next one has another token', async t => {
  const { phone, wx, handshakes, token } = await front(t)
  await wx.login()
  await fetchText(null, `${world.gateway}/auth/logout`, { method: 'POST', headers: { authorization: `Bearer ${token()}` } })
  const socket = wx.connectSocket({ url: '/ws' })
  await event(socket, 'Open')
  assert.deepEqual(handshakes.map(h => h.status), [401, 200])
  assert.equal(phone.calls.login, 2)
})

test('while nobody listens, the pauses grow to half a minute and no further', async t => {
  const phone = new Phone(world)
  t.after(() => phone.close())
  const app = phone.launch()
  const wx = app.createGateway({ baseURL: 'http://127.0.0.1:1' })
  const socket = wx.connectSocket({ url: '/ws', auth: false })
  let closes = 0
  await new Promise(resolve => socket.onClose(() => ++closes === 8 && resolve()))
  socket.close()
  const [first, second] = app.pauses
  assert.ok(first >= 1000 && first <= 1250 && second >= 2000 && second <= 2500, app.pauses.join())
  assert.ok(app.pauses.every(ms => ms <= 37500) && app.pauses.at(-1) >= 30000, app.pauses.join())
})

test('a hidden app does not connect; a shown one does', async t => {
  const { app, wx, sockets, handshakes } = await front(t)
  const socket = wx.connectSocket({ url: '/ws' })
  await event(socket, 'Open')
  app.hide()
  const paused = app.pauses.length
  sockets.clients.forEach(ws => ws.terminate())
  await event(socket, 'Close')
  while (app.pauses.length === paused || app.waiting.size) await new Promise(setImmediate)
  assert.equal(handshakes.length, 1)
  const again = event(socket, 'Open')
  app.show()
  await again
  assert.equal(handshakes.length, 2)
})

test('close ends the attempts; a close with 1000 does, too; sending without a connection fails', async t => {
  const { wx, sockets, handshakes } = await front(t)
  const socket = wx.connectSocket({ url: '/ws' })
  const failed = new Promise(fail => socket.send({ data: 'x', fail }))
  assert.equal((await failed).code, 'network_error')
  await event(socket, 'Open')
  sockets.clients.forEach(ws => ws.close(1000))
  assert.equal((await event(socket, 'Close')).reconnecting, false)
  const other = wx.connectSocket({ url: '/ws', reconnect: false })
  await event(other, 'Open')
  sockets.clients.forEach(ws => ws.terminate())
  assert.equal((await event(other, 'Close')).reconnecting, false)
  assert.equal(handshakes.length, 2)
})

test('no token, no connection: after a logout, and for a foreign address', async t => {
  const { wx, handshakes } = await front(t)
  await wx.login()
  await wx.logout()
  const socket = wx.connectSocket({ url: '/ws', fail() {} })
  const error = await event(socket, 'Error')
  assert.equal(error.code, 'logged_out')
  const foreign = wx.connectSocket({ url: 'wss://evil.example/ws', fail() {} })
  assert.equal((await event(foreign, 'Error')).code, 'foreign_url')
  assert.equal(handshakes.length, 0)
})
