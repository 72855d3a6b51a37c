// The page and its service in one. The gateway tells the service who calls; the page gets it from nowhere else.
import { readFileSync } from 'node:fs'
import http from 'node:http'

const file = (path, type) => ({ type, body: readFileSync(new URL(path, import.meta.url)) })
const files = {
  '/': file('index.html', 'text/html; charset=utf-8'),
  '/page.js': file('page.js', 'text/javascript'),
  '/wxgate.js': file('../../sdk/web/dist/index.js', 'text/javascript'),
}
const orders = new Map()

const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, 'http://page')
  const found = files[pathname]
  if (found) {
    const headers = { 'Content-Type': found.type, 'Content-Security-Policy': "default-src 'self'; img-src *" }
    return response.writeHead(200, headers).end(found.body)
  }
  const answer = (status, body) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body))
  if (pathname !== '/api/orders') return answer(404, { error: 'not found' })
  const openid = request.headers['x-wx-openid']
  if (!openid) return answer(401, { error: 'no caller' })
  const own = orders.get(openid) ?? []
  if (request.method === 'GET') return answer(200, { orders: own })
  let text = ''
  for await (const chunk of request) if ((text += chunk).length > 10000) return answer(413, { error: 'too large' })
  const { item } = JSON.parse(text || '{}')
  if (!item) return answer(400, { error: 'no item' })
  orders.set(openid, [...own, { item: String(item), at: new Date().toISOString() }])
  answer(201, orders.get(openid).at(-1))
})

server.listen(Number(process.env.PORT ?? 3001), '127.0.0.1', () => console.log(`shop on http://127.0.0.1:${server.address().port}`))
