import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { test } from 'node:test'

const built = new URL('../dist/index.js', import.meta.url)

test('the built file has at most 8 KiB', () => {
  assert.ok(statSync(built).size <= 8192, `${statSync(built).size} bytes`)
})

test('the built file needs no module, no DOM and no fetch', () => {
  const text = readFileSync(built, 'utf8')
  for (const name of ['require(', 'import(', 'document', 'window', 'fetch(', 'XMLHttpRequest', 'process.', 'globalThis']) {
    assert.ok(!text.includes(name), name)
  }
})

test('the package has no dependencies', () => {
  const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  assert.equal(dependencies, undefined)
})
