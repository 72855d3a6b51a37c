// The five-minute start, as the guide has it: its own lines, with the demo's addresses.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import vm from 'node:vm'
import { demo } from './shim/world.mjs'
import { Phone } from './shim/wx.mjs'

const read = path => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')
const files = { './utils/wxgate': 'sdk/miniprogram/dist/index.js', './utils/simulated': 'examples/miniprogram/simulated.js' }

let world
before(async () => (world = await demo()))
after(() => world.stop())

for (const guide of ['docs/guide/start.md', 'docs/guide/start.zh-CN.md']) {
  test(`${guide}: what it says to write shows who calls`, async t => {
    const phone = new Phone(world)
    t.after(() => phone.close())
    const { context } = phone.launch()
    const run = code => vm.runInContext(code, context)
    context.require = path => {
      const module = { exports: {} }
      run(`(function (module, exports) {${read(files[path])}\n})`)(module, module.exports)
      return module.exports
    }
    let page
    context.App = app => (context.getApp = () => app)
    context.Page = options => (page = { ...options, setData: data => (page.data = data) })
    const blocks = [...read(guide).matchAll(/```js\n([\s\S]*?)```/g)].map(([, code]) => code)
    assert.equal(blocks.length, 2)
    run(blocks[0].replace('http://127.0.0.1:…', world.simulator).replace('http://127.0.0.1:8080', world.gateway))
    run(blocks[1])
    await page.onLoad()
    assert.match(page.data.message, /^hello, o/)
    assert.equal(phone.calls.login, 0, 'the codes are those of the simulator')
  })
}
