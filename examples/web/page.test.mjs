// The page as a person uses it, in a real Chromium. playwright-core is that of the web SDK's tests.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { after, before, test } from 'node:test'
import { start } from '../start.mjs'

const { chromium } = createRequire(new URL('../../sdk/web/package.json', import.meta.url))('playwright-core')

let all
let browser
before(async () => {
  all = await start('web', { free: true })
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })
})
after(async () => {
  await browser?.close()
  await all?.stop()
})

/** Somebody before the browser, on the page. */
async function visit(t, user, refuses = false) {
  const body = JSON.stringify({ user, refuses })
  assert.equal((await fetch(`${all.simulator}/_sim/browser`, { method: 'POST', body })).status, 204)
  const context = await browser.newContext()
  t.after(() => context.close())
  const page = await context.newPage()
  const faults = []
  page.on('pageerror', error => faults.push(error.message))
  t.after(() => assert.deepEqual(faults, []))
  await page.goto(all.gateway)
  return page
}
const says = (page, text) => page.getByText(text).waitFor()

test('login, order, reload, logout', async t => {
  const page = await visit(t, 'alice')
  await says(page, 'Nobody is logged in.')
  await page.getByRole('button', { name: 'Log in' }).click()
  await says(page, 'Hello, alice')
  assert.equal(page.url(), `${all.gateway}/`)
  await page.getByPlaceholder('Item').fill('tea')
  await page.getByRole('button', { name: 'Order' }).click()
  await page.getByRole('listitem').getByText('tea').waitFor()
  await page.reload()
  await page.getByRole('listitem').getByText('tea').waitFor()
  await page.getByRole('button', { name: 'Log out' }).click()
  await says(page, 'Nobody is logged in.')
  assert.equal(await page.getByRole('listitem').count(), 0)

  const other = await visit(t, 'bob')
  await other.getByRole('button', { name: 'Log in' }).click()
  await says(other, 'Hello, bob')
  assert.equal(await other.getByRole('listitem').count(), 0)
})

test('who refuses on WeChat\'s page is told so, and may try again', async t => {
  const page = await visit(t, 'carol', true)
  await page.getByRole('button', { name: 'Log in' }).click()
  await says(page, 'You have refused.')
  await says(page, 'Nobody is logged in.')
})
