// A service behind wxgate: it reads headers, and knows nothing of tokens, codes or WeChat.
// It must be reachable through the gateway only; so it listens on the loopback interface.
import { randomUUID } from 'node:crypto'
import express from 'express'
import multer from 'multer'
import { WebSocketServer } from 'ws'

const app = express()
app.use(express.json())

/** Pictures that members have uploaded; shown to everybody, by a name that nobody can guess. */
const avatars = new Map()

app.get('/avatars/:id', (request, response) => {
  const avatar = avatars.get(request.params.id)
  if (!avatar) return response.status(404).json({ error: 'no such picture' })
  response.set('X-Content-Type-Options', 'nosniff').type(avatar.type).send(avatar.body)
})

/** Who calls. Only the gateway can write this header: whatever a client sends under this name is removed. */
app.use((request, response, next) => {
  request.openid = request.get('X-WX-OPENID')
  if (!request.openid) return response.status(401).json({ error: 'no caller' })
  next()
})

const orders = new Map()

app.get('/orders', (request, response) => {
  response.json({ orders: orders.get(request.openid) ?? [] })
})

app.post('/orders', (request, response) => {
  if (typeof request.body?.item !== 'string' || !request.body.item) return response.status(400).json({ error: 'no item' })
  const order = { item: request.body.item, at: new Date().toISOString() }
  orders.set(request.openid, [...(orders.get(request.openid) ?? []), order])
  response.status(201).json(order)
})

/** What wx.uploadFile sends: a form with one file. */
const form = multer({ limits: { files: 1, fileSize: 1024 * 1024 } }).single('file')

app.post('/avatars', form, (request, response) => {
  if (!/^image\/(png|jpeg|webp)$/.test(request.file?.mimetype)) return response.status(400).json({ error: 'no picture' })
  const id = randomUUID()
  avatars.set(id, { type: request.file.mimetype, body: request.file.buffer })
  // Where the client has come in.
  const base = `${request.get('X-Forwarded-Proto')}://${request.get('X-Forwarded-Host')}`
  response.status(201).json({ url: `${base}/avatars/${id}` })
})

const server = app.listen(Number(process.env.PORT ?? 3001), '127.0.0.1', error => {
  if (error) throw error
  console.log(`orders on http://127.0.0.1:${server.address().port}`)
})

/** A room in which everybody hears everybody. The handshake has the same headers as a request. */
const room = new WebSocketServer({ server, path: '/chat', maxPayload: 4096 })

room.on('connection', (socket, request) => {
  const openid = request.headers['x-wx-openid']
  if (!openid) return socket.close(4401, 'no caller')
  socket.openid = openid
  socket.on('error', () => {})
  socket.on('message', data => {
    for (const other of room.clients) other.send(JSON.stringify({ text: `${data}`, mine: other.openid === openid }))
  })
})
