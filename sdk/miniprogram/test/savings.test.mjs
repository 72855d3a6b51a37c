import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { savings } from '../scripts/savings.mjs'

test('the tables of the READMEs are what is counted', async () => {
  const lines = await savings()
  for (const name of ['README.md', 'README.zh-CN.md']) {
    const text = readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
    // The figures, row by row; the words are in two languages.
    const figures = rows => rows.map(row => row.match(/\d+ \/ \d+ \/ \d+/g)).filter(Boolean)
    assert.deepEqual(figures(text.split('\n').filter(line => line.startsWith('|'))), figures(lines), name)
  }
})
