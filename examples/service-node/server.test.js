// The example as a user runs it: service, simulator, and gateway with gateway.toml, on free ports.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'

const here = path => fileURLToPath(new URL(path, import.meta.url))
const WXGATE = process.env.WXGATE ?? here('../../target/debug/wxgate')
const children = []
const data = mkdtempSync(join(tmpdir(), 'wxgate-example-'))
let gateway

/** Starts a program and waits for what it prints: gives the first group. */
function start(command, args, pattern, env = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', code => reject(new Error(`${command} ended with ${code}`)))
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on('line', line => {
        const found = pattern.exec(line)
        if (found) resolve(found[1])
      })
    }
  })
}

before(async () => {
  const service = await start(process.execPath, [here('server.js')], /(http:\S+)/, { PORT: '0' })
  const wechat = await start(WXGATE, ['simulate', '--listen', '127.0.0.1:0'], /^WeChat simulator on (http:\S+)/)
  const config = readFileSync(here('gateway.toml'), 'utf8')
    .replace('listen = ["127.0.0.1:8080"]', 'listen = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"')
    .replace('http://127.0.0.1:9100', wechat)
    .replace('http://127.0.0.1:3001', service)
  writeFileSync(join(data, 'gateway.toml'), config)
  const address = await start(WXGATE, ['serve', '--config', join(data, 'gateway.toml')], /"public":"\[([^\]]+)\]"/)
  gateway = `http://${address}`
})

after(async () => {
  for (const child of children) {
    child.removeAllListeners('exit')
    const ended = child.exitCode === null ? once(child, 'exit') : null
    child.kill()
    await ended
  }
  rmSync(data, { recursive: true })
})

async function visitor(user) {
  const body = JSON.stringify({ code: `demo-${user}` })
  const login = await (await fetch(`${gateway}/auth/login`, { method: 'POST', body })).json()
  const headers = { authorization: `Bearer ${login.access_token}`, 'content-type': 'application/json' }
  return (path, options) => fetch(gateway + path, { ...options, headers: { ...headers, ...options?.headers } })
}

test('each caller sees his own orders', async () => {
  const [alice, bob] = [await visitor('alice'), await visitor('bob')]
  const placed = await alice('/api/orders', { method: 'POST', body: '{"item":"tea"}' })
  assert.equal(placed.status, 201)
  assert.deepEqual((await (await alice('/api/orders')).json()).orders.map(order => order.item), ['tea'])
  assert.deepEqual((await (await bob('/api/orders')).json()).orders, [])
})

test('nobody is somebody else by saying so', async () => {
  const bob = await visitor('bob')
  const headers = { 'X-WX-OPENID': 'alice' }
  assert.deepEqual((await (await bob('/api/orders', { headers })).json()).orders, [])
})

test('without a token the service is not asked', async () => {
  const answer = await fetch(`${gateway}/api/orders`)
  assert.equal(answer.status, 401)
  assert.equal((await answer.json()).code, 'token_missing')
})
