// Counts what the SDK saves, with the real gateway and simulator: calls of wx.login, of /auth/login and /auth/refresh, and
// of WeChat, beside two clients as they are commonly written by hand. Prints the table of README.md.
import { pathToFileURL } from 'node:url'
import { demo, gateway } from '../test/shim/world.mjs'
import { Phone } from '../test/shim/wx.mjs'

/** Three ways to write one: how an app begins, how it makes a request, and what it does as time passes. */
const clients = {
  /** The token in a variable, a login wherever it is missing. */
  'naive client': (phone, life) => {
    const { wx } = phone.launch()
    const start = phone.clock
    let token
    return {
      async request(url) {
        if (!token) token = (await logIn(wx, phone)).access_token
        return call(wx, { url: phone.base + url, header: { Authorization: `Bearer ${token}` } })
      },
      tick: () => phone.clock - start >= life && (token = undefined),
    }
  },
  /** One login in App.onLaunch, for which all requests wait. */
  'login at each launch': (phone, life) => {
    const { wx } = phone.launch()
    const start = phone.clock
    let token = logIn(wx, phone)
    return {
      async request(url) {
        const { access_token } = await token
        return call(wx, { url: phone.base + url, header: { Authorization: `Bearer ${access_token}` } })
      },
      tick: () => phone.clock - start >= life && (token = logIn(wx, phone)),
    }
  },
  SDK: phone => {
    const app = phone.launch()
    const wx = app.createGateway({ baseURL: phone.base })
    const tick = () => (app.ahead = phone.clock)
    tick()
    return { request: url => wx.request({ url }), tick }
  },
}

const call = (wx, options) =>
  new Promise((resolve, reject) =>
    wx.request({ ...options, success: r => (r.statusCode === 200 ? resolve(r) : reject(new Error(JSON.stringify(r)))), fail: reject }),
  )

async function logIn(wx, phone) {
  const { code } = await wx.login()
  const login = await call(wx, { url: `${phone.base}/auth/login`, method: 'POST', data: { code } })
  return login.data
}

const atOnce = app => Promise.all(Array.from({ length: 10 }, (_, i) => app.request(`/api/${i}`)))

/** The app is opened for the first time, and its first page makes ten requests. */
async function coldStart(open) {
  await atOnce(open())
}

/** An hour: opened six times, ten minutes apart, each time ten requests at once and ten one after the other. */
async function hour(open, phone) {
  for (let minute = 0; minute < 60; minute += 10) {
    phone.clock = minute * 60e3
    const app = open()
    await atOnce(app)
    await idle(phone)
    for (let i = 0; i < 10; i++) {
      phone.clock = (minute + i) * 60e3
      app.tick()
      await app.request('/api/one')
      await idle(phone)
    }
  }
}

/** A minute is long: what an app does beside its requests (a renewal ahead of time) is over before the next. */
async function idle(phone) {
  for (let quiet = 0; quiet < 20; quiet++) {
    if (phone.apps.some(app => app.active.size)) quiet = 0
    await new Promise(setImmediate)
  }
}

async function measure(world, scenario, make, life) {
  const phone = Object.assign(new Phone(world), { base: world.gateway, clock: 0 })
  const before = await world.exchanges()
  await scenario(() => make(phone, life), phone)
  phone.close()
  const auth = phone.count('/auth/login') + phone.count('/auth/refresh')
  return [phone.calls.login, auth, (await world.exchanges()) - before]
}

/** The table, as lines of Markdown. */
export async function savings() {
  const standard = await demo()
  const short = await gateway('access_ttl = "15m"')
  const cases = [
    ['cold start, 10 requests', coldStart, standard, 7200e3],
    ['an hour, 120 requests, 6 launches', hour, standard, 7200e3],
    ['the same, tokens of 15 minutes', hour, short, 900e3],
  ]
  const lines = [
    '| `wx.login` / `/auth` / WeChat | naive client | login at each launch | SDK |',
    '| --- | --- | --- | --- |',
  ]
  for (const [name, scenario, world, life] of cases) {
    const cells = []
    for (const client in clients) cells.push((await measure(world, scenario, clients[client], life)).join(' / '))
    lines.push(`| ${name} | ${cells.join(' | ')} |`)
  }
  await standard.stop()
  await short.stop()
  return lines
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) console.log((await savings()).join('\n'))
