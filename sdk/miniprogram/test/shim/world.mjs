// The real things around the phone: `wxgate demo`, or a gateway of one's own with a simulator and a service.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import { fetchText } from './wx.mjs'

export const WXGATE = process.env.WXGATE ?? fileURLToPath(new URL('../../../../target/debug/wxgate', import.meta.url))
export const ANY = '127.0.0.1:0'
const SHORT = `[[route]]
path = "/short/*"
upstream = "service"
`

/** Starts wxgate and waits until each pattern has been printed; gives their first groups and how to stop. */
export async function start(args, patterns) {
  const child = spawn(WXGATE, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const found = {}
  let said = ''
  await new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', code => reject(new Error(`${WXGATE} ${args.join(' ')} ended with ${code}:\n${said}`)))
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', line => {
        said += `${line}\n`
        for (const name in patterns) found[name] ??= patterns[name].exec(line)?.[1]
        if (Object.keys(patterns).every(name => found[name])) resolve()
      })
    }
  })
  const stop = async () => {
    child.removeAllListeners('exit')
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  return { ...found, stop, child }
}

/** Gateway, simulator and sample service in one process, as a person starts them. */
export async function demo() {
  const { gateway, simulator, stop } = await start(['demo', '--listen', ANY, '--admin', ANY, '--internal', ANY], {
    gateway: /^\s*gateway +(http:\S+)/,
    simulator: /^\s*WeChat simulator +(http:\S+)/,
  })
  return { gateway, simulator, stop, ...control(simulator) }
}

/**
 * A gateway with its own [token] settings, a simulator, and a service that the test can look into. `/limited/*` takes one
 * request a second of each caller, `/short/*` is a route that can be taken away.
 */
export async function gateway(token = '') {
  const service = await startService()
  const simulator = await start(['simulate', '--listen', ANY], { address: /^WeChat simulator on (http:\S+)/ })
  const data = mkdtempSync(join(tmpdir(), 'wxgate-sdk-'))
  const config = join(data, 'gateway.toml')
  const write = ({ listen = ANY, routes = SHORT }) =>
    writeFileSync(
      config,
      `[server]
listen = ["${listen}"]
drain_timeout = "1s"
[admin]
listen = "${ANY}"
[token]
issuer = "http://127.0.0.1"
keys = "keys"
${token}
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"
[wechat]
api_base = "${simulator.address}"
[[app]]
appid = "wx0123456789abcdef"
secret = "s"
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:${service.port}"]
[[route]]
path = "/api/*"
upstream = "service"
[[route]]
path = "/public/*"
upstream = "service"
auth = "optional"
[[route]]
path = "/limited/*"
upstream = "service"
limit = { by = "openid", rate = "1/s", burst = 1 }
${routes}`,
    )
  write({})
  const serve = () => start(['serve', '--config', config], { public: /"public":"\[([^\]]+)\]"/ })
  let running = await serve()
  const listen = running.public
  return {
    gateway: `http://${listen}`,
    /** As an operator does it: SIGTERM, and the same address again. */
    async restart() {
      running.child.removeAllListeners('exit')
      const ended = once(running.child, 'exit')
      running.child.kill('SIGTERM')
      await ended
      write({ listen })
      running = await serve()
    },
    /** Takes `/short/*` out of the configuration. */
    removeRoute() {
      write({ routes: '' })
      running.child.kill('SIGHUP')
    },
    simulator: simulator.address,
    service,
    ...control(simulator.address),
    stop: async () => {
      await running.stop()
      await simulator.stop()
      await service.stop()
      rmSync(data, { recursive: true })
    },
  }
}

export function control(simulator) {
  const ask = async (method, path, body) => {
    const answer = await fetchText(null, simulator + path, { method, body: body && JSON.stringify(body) })
    if (answer.status > 299) throw new Error(answer.body)
    return answer.body && JSON.parse(answer.body)
  }
  return {
    /** Plans a fault of WeChat. */
    fault: fault => ask('POST', '/_sim/faults', fault),
    /** Who sits before the browser, and whether he refuses. */
    sits: (user, refuses = false) => ask('POST', '/_sim/browser', { user, refuses }),
    /** How often WeChat was asked for a login. */
    exchanges: async () => (await ask('GET', '/_sim/calls')).counts['/sns/jscode2session'] ?? 0,
  }
}

/** Echoes, on sockets too; counts; streams; can be stopped and started on the same port. `pages` by path. */
export async function startService(pages = {}) {
  const seen = []
  const handshakes = []
  const talks = new WebSocketServer({ noServer: true })
  const sockets = new Set()
  const make = () =>
    http.createServer(async (request, response) => {
      const chunks = []
      for await (const chunk of request) chunks.push(chunk)
      const body = Buffer.concat(chunks)
      seen.push({ method: request.method, path: request.url, openid: request.headers['x-wx-openid'], bytes: body.length })
      const page = pages[request.url.replace(/\?.*/, '')]
      if (page) return response.writeHead(200, { 'content-type': page.type }).end(page.body)
      if (request.url.includes('/file')) return response.end(Buffer.alloc(300000, 'x'))
      if (request.url.includes('/hang')) return held.push(response)
      if (request.url.includes('/stream')) {
        response.write('one ')
        return response.end('two')
      }
      if (request.url.includes('/teapot')) response.statusCode = 418
      response.setHeader('content-type', 'application/json')
      response.end(
        JSON.stringify({
          method: request.method,
          path: request.url,
          openid: request.headers['x-wx-openid'],
          authorization: request.headers.authorization,
          type: request.headers['content-type'],
          text: body.length < 2000 ? body.toString() : undefined,
          bytes: body.length,
        }),
      )
    })
  const held = []
  let server = make()
  const listen = async port => {
    server.on('connection', socket => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    server.on('upgrade', (request, socket, head) => {
      const { 'x-wx-openid': openid, authorization } = request.headers
      handshakes.push({ url: request.url, openid, authorization })
      talks.handleUpgrade(request, socket, head, talk => {
        talk.on('message', (data, binary) => talk.send(binary ? data : `echo ${data}`))
        talk.on('error', () => {})
      })
    })
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    return server.address().port
  }
  const port = await listen(0)
  const stop = async () => {
    if (!server.listening) return
    const closed = once(server, 'close')
    server.close()
    sockets.forEach(socket => socket.destroy())
    await closed
  }
  return {
    port,
    seen,
    held,
    handshakes,
    /** What is open: each can be closed or terminated. */
    talks: talks.clients,
    stop,
    start: () => ((server = make()), listen(port)),
  }
}
