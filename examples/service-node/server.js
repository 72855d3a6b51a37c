// A service behind wxgate: it reads headers, and knows nothing of tokens, codes or WeChat.
// It must be reachable through the gateway only; so it listens on the loopback interface.
import express from 'express'

const app = express()
app.use(express.json())

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
  const order = { item: String(request.body?.item ?? ''), at: new Date().toISOString() }
  orders.set(request.openid, [...(orders.get(request.openid) ?? []), order])
  response.status(201).json(order)
})

const server = app.listen(Number(process.env.PORT ?? 3001), '127.0.0.1', error => {
  if (error) throw error
  console.log(`orders on http://127.0.0.1:${server.address().port}`)
})
