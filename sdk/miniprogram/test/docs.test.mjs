import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'

const root = new URL('../../../', import.meta.url)
const read = path => readFileSync(new URL(path, root), 'utf8')
const pages = ['start', 'migrate', 'problems'].flatMap(name => [`docs/guide/${name}.md`, `docs/guide/${name}.zh-CN.md`])

test('the guide explains every code of the gateway, and none that there is not', () => {
  const codes = [...read('src/problem.rs').matchAll(/^ {4}\w+ = "(\w+)", \d{3},/gm)].map(match => match[1])
  assert.ok(codes.length > 30)
  for (const path of ['docs/guide/problems.md', 'docs/guide/problems.zh-CN.md']) {
    const rows = read(path).split('\n').filter(line => /^\| `.*\| \d{3}/.test(line))
    const explained = rows.flatMap(row => [...row.split('|')[1].matchAll(/`(\w+)`/g)].map(match => match[1]))
    assert.deepEqual(explained.sort(), codes.sort(), path)
  }
})

test('links between the pages lead somewhere', () => {
  const readmes = ['sdk/miniprogram', 'sdk/web', 'examples'].flatMap(path => [`${path}/README.md`, `${path}/README.zh-CN.md`])
  for (const path of [...pages, ...readmes]) {
    for (const [, to] of read(path).matchAll(/\]\((?!http)([^)#]+)[^)]*\)/g)) {
      assert.ok(existsSync(new URL(to, new URL(path, root))), `${path}: ${to}`)
    }
  }
})
