// The admin page in a real Chromium, against `wxgate demo`.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'

const ANY = '127.0.0.1:0'
let demo, browser, admin, gateway, simulator, data, token

before(async () => {
  data = mkdtempSync(join(tmpdir(), 'wxgate-page-'))
  demo = spawn(process.env.WXGATE, ['demo', '--listen', ANY, '--admin', ANY, '--internal', ANY, '--data', data], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const found = {}
  const wanted = { gateway: /^ {2}gateway +(\S+)/, admin: /^ {2}admin +(\S+)/, simulator: /^ {2}WeChat simulator +(\S+)/ }
  for await (const line of createInterface({ input: demo.stdout })) {
    for (const [name, pattern] of Object.entries(wanted)) found[name] ??= line.match(pattern)?.[1]
    if (line.startsWith('Stop with')) break
  }
  ;({ gateway, admin, simulator } = found)
  token = readFileSync(join(data, 'keys/admin.token'), 'utf8').trim()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })
})

after(async () => {
  await browser?.close()
  demo?.kill('SIGTERM')
  await new Promise(resolve => demo.once('exit', resolve))
  rmSync(data, { recursive: true })
})

async function login(user) {
  const { code } = await (await fetch(`${simulator}/_sim/code?user=${user}`)).json()
  const answer = await fetch(`${gateway}/auth/login`, { method: 'POST', body: JSON.stringify({ code }) })
  assert.equal(answer.status, 200)
  return answer.json()
}

const status = async member =>
  (await fetch(`${gateway}/api/x`, { headers: { authorization: `Bearer ${member.access_token}` } })).status

async function rename(member, nickname) {
  const headers = { authorization: `Bearer ${member.access_token}` }
  const answer = await fetch(`${gateway}/auth/me`, { method: 'PUT', headers, body: JSON.stringify({ nickname }) })
  assert.equal(answer.status, 200)
}

/** A tab with the page; what it asked elsewhere, and what it complained about. */
async function visit(t, shown = token) {
  const context = await browser.newContext()
  t.after(() => context.close())
  const tab = await context.newPage()
  const foreign = []
  const errors = []
  tab.on('request', request => request.url().startsWith(admin) || request.url().startsWith('data:') || foreign.push(request.url()))
  tab.on('console', message => message.type() === 'error' && errors.push(message.text()))
  tab.on('pageerror', error => errors.push(String(error)))
  await tab.goto(`${admin}/`)
  if (shown) {
    await tab.getByLabel('Admin token').fill(shown)
    await tab.getByRole('button', { name: 'Open' }).click()
  }
  return { tab, foreign, errors, context }
}

test('a wrong token opens nothing', async t => {
  const { tab } = await visit(t, 'f'.repeat(64))
  await tab.getByRole('alert').filter({ hasText: 'not the token' }).waitFor()
  assert.equal(await tab.locator('#main').isVisible(), false)
  assert.equal(await tab.evaluate(() => sessionStorage.length), 0)
})

test('the right one shows health, upstreams and routes, and nothing is asked elsewhere', async t => {
  const { tab, foreign, errors } = await visit(t)
  await tab.getByRole('status').filter({ hasText: /^ready$/ }).waitFor()
  await tab.locator('#upstreams td', { hasText: /^sample$/ }).waitFor()
  await tab.locator('#upstreams .good', { hasText: 'up' }).waitFor()
  await tab.locator('#routes td', { hasText: '/public/*' }).waitFor()
  await tab.reload()
  await tab.locator('#routes td', { hasText: '/public/*' }).waitFor()
  await tab.getByRole('button', { name: 'Forget the token' }).click()
  await tab.getByLabel('Admin token').waitFor()
  assert.equal(await tab.evaluate(() => sessionStorage.length), 0)
  assert.deepEqual([foreign, errors], [[], []])
})

test('a member is found, banned and let in again', async t => {
  const alice = await login('alice')
  await rename(alice, 'Alice <img src=x onerror=alert(1)>')
  const { tab, errors } = await visit(t)
  await tab.getByLabel('Find by').selectOption('nickname')
  await tab.getByLabel('What to find').fill('alice <img')
  await tab.getByRole('button', { name: 'Find' }).click()
  const row = tab.locator('#members tbody tr')
  await row.filter({ hasText: 'Alice <img src=x onerror=alert(1)>' }).waitFor()
  assert.equal(await row.count(), 1)
  assert.equal(await tab.locator('#members img').count(), 0, 'what a member wrote is text')
  assert.equal(await status(alice), 200)
  tab.once('dialog', dialog => dialog.accept('spam'))
  await row.getByRole('button', { name: 'Ban' }).click()
  await row.locator('.bad', { hasText: 'banned: spam' }).waitFor()
  assert.equal(await status(alice), 401)
  await row.getByRole('button', { name: 'Lift the ban' }).click()
  await row.getByRole('button', { name: 'Ban', exact: true }).waitFor()
  assert.equal(await status(await login('alice')), 200)
  tab.once('dialog', dialog => dialog.accept('vip, ops'))
  await row.getByRole('button', { name: 'Roles' }).click()
  await row.locator('td', { hasText: 'ops, vip' }).waitFor()
  assert.deepEqual(errors, [])
})

test('a session is ended, and then all of them', async t => {
  const devices = [await login('bob'), await login('bob'), await login('bob')]
  const { tab } = await visit(t)
  await tab.getByLabel('Find by').selectOption('openid')
  await tab.getByLabel('What to find').fill(devices[0].openid)
  await tab.getByRole('button', { name: 'Find' }).click()
  await tab.locator('#members tbody tr', { hasText: devices[0].openid }).getByRole('button', { name: 'Sessions' }).click()
  const rows = tab.locator('#sessions tbody tr')
  await rows.nth(2).waitFor()
  await rows.first().getByRole('button', { name: 'End' }).click()
  await tab.waitForFunction(() => document.querySelectorAll('#sessions tbody tr').length === 2)
  const alive = async () => (await Promise.all(devices.map(status))).filter(code => code === 200).length
  assert.equal(await alive(), 2)
  await tab.getByRole('button', { name: 'End all' }).click()
  await tab.waitForFunction(() => document.querySelectorAll('#sessions tbody tr').length === 0)
  assert.equal(await alive(), 0)
})

test('a reload tells what changed, or the faults', async t => {
  const file = join(data, 'gateway.toml')
  const text = readFileSync(file, 'utf8')
  const { tab } = await visit(t)
  const reload = tab.getByRole('button', { name: 'Reload the configuration' })
  await reload.waitFor()
  writeFileSync(file, text.replace('path = "/public/*"', 'path = "/public/*"\nauth = "sometimes"').replace('auth = "optional"', ''))
  await reload.click()
  await tab.locator('#reload-result.bad', { hasText: 'auth' }).waitFor()
  await tab.locator('#routes td', { hasText: '/public/*' }).waitFor()
  writeFileSync(file, text.replace('path = "/public/*"', 'path = "/open/*"'))
  await reload.click()
  await tab.locator('#routes td', { hasText: '/open/*' }).waitFor()
  writeFileSync(file, text)
})

test('the page cannot be framed, and its policy lets nothing else in', async () => {
  const answer = await fetch(`${admin}/`)
  const policy = answer.headers.get('content-security-policy')
  assert.match(policy, /default-src 'none'.*frame-ancestors 'none'/)
  assert.doesNotMatch(policy, /unsafe/)
  assert.equal(answer.headers.get('x-frame-options'), 'DENY')
  const { tab } = { tab: await (await browser.newContext()).newPage() }
  await tab.goto(`${admin}/`)
  const injected = await tab.evaluate(() => {
    const script = document.createElement('script')
    script.textContent = 'window.injected = true'
    document.body.append(script)
    return window.injected === true
  })
  assert.equal(injected, false)
  await tab.context().close()
})
