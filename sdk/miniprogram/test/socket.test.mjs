// connectSocket through the real gateway to a WebSocket service behind it.
import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { gateway } from './shim/world.mjs'
import { Phone, fetchText } from './shim/wx.mjs'

let world
before(async () => (world = await gateway()))
after(() => world.stop())
beforeEach(() => (world.service.handshakes.length = 0))

function visitor(t, where = world) {
  const phone = new Phone(where)
  t.after(() => phone.close())
  const app = phone.launch()
  const wx = app.createGateway({ baseURL: where.gateway })
  const token = () => [...phone.storage.values()][0].answer.access_token
  const logOut = () =>
    fetchText(null, `${where.gateway}/auth/logout`, { method: 'POST', headers: { authorization: `Bearer ${token()}` } })
  return { phone, app, wx, token, logOut }
}

const event = (socket, name) => new Promise(resolve => socket[`on${name}`](resolve))
const terminate = () => world.service.talks.forEach(talk => talk.terminate())

test('a socket logs in first; the service sees who calls, and no token', async t => {
  const { phone, wx } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws?room=1' })
  const { header } = await event(socket, 'Open')
  assert.ok(header)
  socket.send({ data: 'hi' })
  assert.equal((await event(socket, 'Message')).data, 'echo hi')
  const { openid } = wx.session
  assert.deepEqual(world.service.handshakes, [{ url: '/api/ws?room=1', openid, authorization: undefined }])
  assert.equal(phone.calls.login, 1)
  socket.close()
  const { code, reconnecting } = await event(socket, 'Close')
  assert.deepEqual([code, reconnecting], [1000, false])
})

test('binary messages arrive as they were sent', async t => {
  const { wx } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  socket.send({ data: new Uint8Array([0, 255, 7]).buffer })
  const { data } = await event(socket, 'Message')
  assert.deepEqual([...new Uint8Array(data)], [0, 255, 7])
})

test('without a login: optional carries nobody, false carries nothing', async t => {
  const { phone, wx } = visitor(t)
  for (const auth of ['optional', false]) {
    const socket = wx.connectSocket({ url: '/public/ws', auth })
    await event(socket, 'Open')
    socket.close()
  }
  assert.deepEqual(world.service.handshakes.map(h => h.openid), [undefined, undefined])
  assert.equal(phone.calls.login, 0)
})

test('a lost socket is made again, after a pause', async t => {
  const { app, wx } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  const again = event(socket, 'Open')
  terminate()
  const { reconnecting } = await event(socket, 'Close')
  assert.equal(reconnecting, true)
  await again
  assert.equal(world.service.handshakes.length, 2)
  assert.ok(app.pauses.some(ms => ms >= 1000 && ms <= 1250))
})

test('a session that is revoked: the gateway closes with 4001, and the socket comes back in a new one', async t => {
  const { phone, wx, token, logOut } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  const old = token()
  const again = event(socket, 'Open')
  const closed = event(socket, 'Close')
  await logOut()
  const { code, reason, reconnecting } = await closed
  assert.deepEqual([code, reason, reconnecting], [4001, 'token_revoked', true])
  await again
  assert.notEqual(token(), old)
  assert.deepEqual(phone.handshakes, [101, 101])
  assert.equal(phone.calls.login, 2)
  socket.close()
})

test('a token that expires: the gateway closes with 4001, and the socket comes back with the next, without a login', async t => {
  const own = await gateway('access_ttl = "2s"')
  t.after(() => own.stop())
  const { phone, wx, token } = visitor(t, own)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  const old = token()
  const again = event(socket, 'Open')
  const { code, reason } = await event(socket, 'Close')
  assert.deepEqual([code, reason], [4001, 'token_expired'])
  await again
  socket.send({ data: 'still here' })
  assert.equal((await event(socket, 'Message')).data, 'echo still here')
  assert.notEqual(token(), old)
  assert.equal(phone.calls.login, 1)
  assert.equal(phone.count('/auth/refresh'), 1)
  socket.close()
})

test('a handshake that is refused: the next one has another token', async t => {
  const { phone, wx, logOut } = visitor(t)
  await wx.login()
  await logOut()
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  assert.deepEqual(phone.handshakes, [401, 101])
  assert.equal(world.service.handshakes.length, 1)
  assert.equal(phone.calls.login, 2)
})

test('a gateway that is restarted: the socket comes back, in the same session', async t => {
  const own = await gateway()
  t.after(() => own.stop())
  const { phone, wx } = visitor(t, own)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  const again = event(socket, 'Open')
  const closed = event(socket, 'Close')
  await own.restart()
  const { code, reason, reconnecting } = await closed
  assert.deepEqual([code, reason, reconnecting], [1001, 'draining', true])
  await again
  assert.equal(phone.calls.login, 1)
  socket.close()
})

test('a route that is gone: no further attempt', async t => {
  const own = await gateway()
  t.after(() => own.stop())
  const { phone, wx } = visitor(t, own)
  const socket = wx.connectSocket({ url: '/short/ws' })
  await event(socket, 'Open')
  own.removeRoute()
  const { code, reason, reconnecting } = await event(socket, 'Close')
  assert.deepEqual([code, reason, reconnecting], [1001, 'route_removed', false])
  assert.deepEqual(phone.handshakes, [101])
})

test('while nobody listens, the pauses grow to half a minute and no further', async t => {
  const { app, phone } = visitor(t)
  const wx = app.createGateway({ baseURL: 'http://127.0.0.1:1' })
  const socket = wx.connectSocket({ url: '/ws', auth: false })
  let closes = 0
  await new Promise(resolve => socket.onClose(() => ++closes === 8 && resolve()))
  socket.close()
  const [first, second] = app.pauses
  assert.ok(first >= 1000 && first <= 1250 && second >= 2000 && second <= 2500, app.pauses.join())
  assert.ok(app.pauses.every(ms => ms <= 37500) && app.pauses.at(-1) >= 30000, app.pauses.join())
  assert.deepEqual(phone.handshakes, [])
})

test('a hidden app does not connect; a shown one does', async t => {
  const { app, wx } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws' })
  await event(socket, 'Open')
  app.hide()
  const paused = app.pauses.length
  terminate()
  await event(socket, 'Close')
  while (app.pauses.length === paused || app.waiting.size) await new Promise(setImmediate)
  assert.equal(world.service.handshakes.length, 1)
  const again = event(socket, 'Open')
  app.show()
  await again
  assert.equal(world.service.handshakes.length, 2)
})

test('close ends the attempts; a close with 1000 does, too; sending without a connection fails', async t => {
  const { wx } = visitor(t)
  const socket = wx.connectSocket({ url: '/api/ws' })
  const failed = new Promise(fail => socket.send({ data: 'x', fail }))
  assert.equal((await failed).code, 'network_error')
  await event(socket, 'Open')
  world.service.talks.forEach(talk => talk.close(1000))
  assert.equal((await event(socket, 'Close')).reconnecting, false)
  const other = wx.connectSocket({ url: '/api/ws', reconnect: false })
  await event(other, 'Open')
  terminate()
  assert.equal((await event(other, 'Close')).reconnecting, false)
  assert.equal(world.service.handshakes.length, 2)
})

test('no token, no connection: after a logout, and for a foreign address', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  await wx.logout()
  const socket = wx.connectSocket({ url: '/api/ws', fail() {} })
  const error = await event(socket, 'Error')
  assert.equal(error.code, 'logged_out')
  const foreign = wx.connectSocket({ url: 'wss://evil.example/ws', fail() {} })
  assert.equal((await event(foreign, 'Error')).code, 'foreign_url')
  assert.deepEqual(phone.handshakes, [])
})
