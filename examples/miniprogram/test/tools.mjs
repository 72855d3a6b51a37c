// The mini program's own code, run as the platform runs it: App, Page, getApp and require over the `wx` of the SDK's tests.
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
export const read = path => readFileSync(join(ROOT, path), 'utf8')

/** Starts the app on a phone. `config` takes the place of config.js. */
export function open(phone, config) {
  const { context, wx, ...rest } = phone.launch()
  const toasts = []
  Object.assign(wx, { showToast: ({ title }) => toasts.push(title), stopPullDownRefresh() {} })
  const modules = new Map([['config.js', { exports: config }]])
  let app
  let defined
  context.App = options => (app = options)
  context.Page = options => (defined = options)
  context.getApp = () => app

  const load = path => {
    if (!modules.has(path)) {
      const module = { exports: {} }
      modules.set(path, module)
      const body = vm.runInContext(`(function (require, module, exports) {${read(path)}\n})`, context, { filename: path })
      body(to => load(normalize(join(dirname(path), to)).replace(/(\.js)?$/, '.js')), module, module.exports)
    }
    return modules.get(path).exports
  }
  load('app.js')

  return {
    ...rest,
    toasts,
    gateway: app.gateway,
    /** Opens a page and waits for what it does at first. */
    async page(name) {
      load(`pages/${name}/index.js`)
      const page = { ...defined, data: structuredClone(defined.data), changed: [] }
      page.setData = patch => {
        Object.assign(page.data, patch)
        page.changed.splice(0).forEach(run => run())
      }
      /** Until the data are so. */
      page.until = async test => {
        while (!test(page.data)) await new Promise(resolve => page.changed.push(resolve))
      }
      await page.onLoad?.()
      await page.onShow?.()
      return page
    },
  }
}
