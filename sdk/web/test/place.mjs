// Pages in a real Chromium, behind the real gateway, with the simulator where WeChat would be.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'
import { ANY, control, start, startService } from '../../miniprogram/test/shim/world.mjs'

export const ACCOUNT = 'wx0123456789abcdef'
export const WEBSITE = 'wxfedcba9876543210'

const PAGE = '<!doctype html><meta charset="utf-8"><title>page</title><script type="module" src="/page/main.js"></script>'
const MAIN = "import { createGateway } from '/page/wxgate.js'\nwindow.createGateway = createGateway\n"

/** Gateway, simulator, a service that also serves the pages, and a browser. */
export async function place({ cookie = false } = {}) {
  const script = body => ({ type: 'text/javascript', body })
  const page = { type: 'text/html', body: PAGE }
  const wxgate = script(readFileSync(new URL('../dist/index.js', import.meta.url)))
  const pages = { '/page/': page, '/page/other': page, '/page/main.js': script(MAIN), '/page/wxgate.js': wxgate }
  const service = await startService(pages)
  const simulator = await start(['simulate', '--listen', ANY], { address: /^WeChat simulator on (http:\S+)/ })
  const data = mkdtempSync(join(tmpdir(), 'wxgate-web-'))
  const config = join(data, 'gateway.toml')
  // Pages may also live on another origin: the service's own.
  const elsewhere = `http://127.0.0.1:${service.port}`
  // The issuer is the gateway's own address, which is known when it listens: a reload tells it.
  const write = issuer =>
    writeFileSync(
      config,
      `[server]
listen = ["${ANY}"]
[admin]
listen = "${ANY}"
[token]
issuer = "${issuer}"
keys = "keys"
[store]
members = "sqlite:wxgate.db"
sessions = "sqlite:wxgate.db"
[wechat]
api_base = "${simulator.address}"
open_base = "${simulator.address}"
[[app]]
appid = "${ACCOUNT}"
kind = "official-account"
secret = "s"
origins = ["${issuer}", "${elsewhere}"]
${cookie ? 'web_result = "cookie"' : ''}
[[app]]
appid = "${WEBSITE}"
kind = "website"
secret = "t"
origins = ["${issuer}"]
[[upstream]]
name = "service"
servers = ["http://127.0.0.1:${service.port}"]
[[route]]
path = "/page/*"
upstream = "service"
auth = "none"
[[route]]
path = "/api/*"
upstream = "service"
${cookie ? 'cookie = true' : ''}
cors = { origins = ["${elsewhere}"], headers = ["authorization", "content-type"], expose = ["retry-after"], credentials = ${cookie} }
[[route]]
path = "/limited/*"
upstream = "service"
limit = { by = "openid", rate = "1/s", burst = 1 }
`,
    )
  write('http://127.0.0.1')
  const running = await start(['serve', '--config', config], { public: /"public":"\[([^\]]+)\]"/ })
  const gateway = `http://${running.public}`
  const reloaded = new Promise(resolve => {
    for (const stream of [running.child.stdout, running.child.stderr]) {
      createInterface({ input: stream }).on('line', line => line.includes('configuration reloaded') && resolve())
    }
  })
  write(gateway)
  running.child.kill('SIGHUP')
  await reloaded
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium' })
  return {
    gateway,
    elsewhere,
    simulator: simulator.address,
    service,
    browser,
    ...control(simulator.address),
    stop: async () => {
      await browser.close()
      await running.stop()
      await simulator.stop()
      await service.stop()
      rmSync(data, { recursive: true })
    },
  }
}

/** A browser of its own, with nothing stored; its tabs, and what they ask of /auth. */
export async function visitor(t, world, user = 'alice', context = {}) {

  await world.sits(user)
  const own = await world.browser.newContext(context)
  t.after(() => own.close())
  // A clock that can be put ahead, in all tabs.
  await own.addInitScript(() => {
    const now = Date.now.bind(Date)
    Date.now = () => now() + Number(sessionStorage.getItem('ahead'))
  })
  const asked = []
  own.on('request', request => {
    const { pathname } = new URL(request.url())
    if (pathname.startsWith('/auth/')) asked.push(pathname)
  })
  return {
    context: own,
    asked,
    count: path => asked.filter(each => each === path).length,
    /** A tab with the page, whose gateway is `window.wx`. */
    async open(path = '/page/', options = {}, origin = world.gateway) {
      const tab = await own.newPage()
      const settings = { baseURL: world.gateway, appid: ACCOUNT, ...options }
      // On every load, as a page does.
      await tab.addInitScript(settings => {
        window.heard = []
        window.begin = () =>
          (window.wx ??= window.createGateway({ ...settings, onAuthChange: session => window.heard.push(session ? 'in' : 'out') }))
      }, settings)
      await tab.goto(origin + path)
      await begin(tab)
      return tab
    },
  }
}

/** Waits until the page has its gateway, as after each load. */
export async function begin(tab) {
  await tab.waitForFunction(() => window.createGateway && window.begin && window.begin())
}

/** Logs in as a person does: away to WeChat and back. */
export async function logIn(tab) {
  // Whatever comes back, a ticket or a cookie: it is another document.
  await tab.evaluate(() => ((window.left = true), void window.wx.login()))
  await tab.waitForFunction(() => !window.left && location.pathname.startsWith('/page/'))
  await begin(tab)
  return tab.evaluate(() => window.wx.ready)
}

/** A request of the page: its answer, or what the page sees of its error. */
export function ask(tab, options, method = 'request') {
  return tab.evaluate(
    ([method, options]) =>
      window.wx[method](options).then(
        ({ data, statusCode }) => ({ data, statusCode }),
        ({ name, code, status, retryAfter, errMsg }) => ({ name, code, status, retryAfter, errMsg }),
      ),
    [method, options],
  )
}
