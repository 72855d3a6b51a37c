// `wx` as a phone has it, over real sockets: the semantics that WeChat documents for the functions that the SDK uses, and
// the ways in which they fail. A phone (storage, user, network) outlives the apps that are launched on it.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'
import { WebSocket } from 'ws'

const BUILT = fileURLToPath(new URL('../../dist/index.js', import.meta.url))
const METHODS = ['OPTIONS', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT']

export class Phone {
  constructor({ simulator, user = randomUUID() }) {
    Object.assign(this, { simulator, user })
    this.storage = new Map()
    this.files = new Map()
    this.agent = new http.Agent({ keepAlive: true })
    /** What happened: calls by name, requests as {method, path, status}. */
    this.calls = { login: 0, checkSession: 0 }
    this.requests = []
    /** Of each attempt to open a socket: 101, or the status that refused it. */
    this.handshakes = []
    this.mostAtOnce = 0
    this.online = true
    this.sessionKeyGood = true
    this.storageFull = false
    /** Functions of a request that may spoil it: `lose` (carried out, no answer), `answer` (by nobody), `hang`. */
    this.spoilers = []
    this.apps = []
  }

  /** Spoils the next request whose path ends so. */
  spoil(path, how) {
    this.spoilers.push({ path, ...how })
  }

  count(path) {
    return this.requests.filter(r => r.path.endsWith(path)).length
  }

  /** What the phone button hands to the page: a code, and the older, encrypted form. */
  phoneButton() {
    return this.#simulated('/_sim/phone')
  }

  /** wx.getUserProfile, once the user has agreed. */
  userProfile() {
    return this.#simulated('/_sim/user-info')
  }

  async #simulated(path, more) {
    const body = JSON.stringify({ user: this.user, ...more })
    const answer = await fetchText(null, this.simulator + path, { method: 'POST', body })
    if (answer.status !== 200) throw new Error(answer.body)
    return JSON.parse(answer.body)
  }

  /** Steps, encrypted: what wx.getWeRunData gives. */
  steps(step) {
    return this.#simulated('/_sim/open-data', { data: { stepInfoList: [{ timestamp: 1, step }] } })
  }

  /** Runs the built file in a mini program's global scope, which has neither DOM nor fetch nor Node's modules. */
  launch(options) {
    const app = new App(this, options)
    this.apps.push(app)
    return app
  }

  close() {
    this.apps.forEach(app => app.close())
    this.agent.destroy()
  }
}

class App {
  /** `patient`: pauses last as long as they say. */
  constructor(phone, { patient = false } = {}) {
    this.phone = phone
    this.patient = patient
    this.active = new Set()
    this.sockets = new Set()
    this.hidden = false
    this.listeners = { show: [], hide: [] }
    /** The app's clock is ahead of the real one; it jumps over every pause that the SDK makes. */
    this.ahead = 0
    this.pauses = []
    this.waiting = new Set()
    this.wx = this.#wx()
    const module = { exports: {} }
    this.context = vm.createContext({
      wx: this.wx,
      module,
      exports: module.exports,
      console,
      setTimeout: (run, ms) => this.#setTimeout(run, ms),
      now: () => Date.now() + this.ahead,
    })
    vm.runInContext('Date.now = () => now(); delete globalThis.WebAssembly', this.context)
    vm.runInContext(readFileSync(BUILT, 'utf8'), this.context, { filename: BUILT })
    this.createGateway = module.exports.createGateway
  }

  close() {
    this.closed = true
    this.waiting.forEach(clearTimeout)
    this.active.forEach(end => end('abort'))
    this.sockets.forEach(socket => socket.terminate())
  }

  /** Unfinished requests end when the app goes to the background (after 5 s; here at once). */
  hide() {
    this.hidden = true
    this.listeners.hide.forEach(run => run())
    this.active.forEach(end => end('interrupted'))
  }

  show() {
    this.hidden = false
    this.listeners.show.forEach(run => run())
  }

  #setTimeout(run, ms) {
    if (this.closed) return
    this.pauses.push(ms)
    const start = Date.now()
    const timer = setTimeout(() => {
      this.waiting.delete(timer)
      this.ahead += Math.max(0, ms - (Date.now() - start))
      run()
    }, this.patient ? ms : Math.min(ms, 20))
    this.waiting.add(timer)
  }

  #wx() {
    const { phone } = this
    const promised = start => (options = {}) => {
      const { success, fail, complete } = options
      const promise = new Promise((resolve, reject) => setImmediate(() => start(options).then(resolve, reject)))
      if (!success && !fail && !complete) return promise
      promise.then(
        result => (success?.(result), complete?.(result)),
        error => (fail?.(error), complete?.(error)),
      )
    }
    const clone = value => (value === undefined ? '' : JSON.parse(JSON.stringify(value)))
    return {
      login: promised(async () => {
        phone.calls.login++
        if (!phone.online) throw { errMsg: 'login:fail' }
        const { body } = await fetchText(phone, `${phone.simulator}/_sim/code?user=${encodeURIComponent(phone.user)}`)
        return { code: JSON.parse(body).code, errMsg: 'login:ok' }
      }),
      checkSession: promised(async () => {
        phone.calls.checkSession++
        if (!phone.sessionKeyGood) throw { errMsg: 'checkSession:fail session time out' }
        return { errMsg: 'checkSession:ok' }
      }),
      getWeRunData: promised(async () => ({ ...(await phone.steps(4321)), errMsg: 'getWeRunData:ok' })),
      getStorageSync: key => clone(phone.storage.get(key)),
      setStorageSync: (key, value) => {
        if (phone.storageFull) throw new Error('setStorageSync:fail the current storage space is insufficient')
        phone.storage.set(key, clone(value))
      },
      removeStorageSync: key => phone.storage.delete(key),
      onAppShow: run => this.listeners.show.push(run),
      onAppHide: run => this.listeners.hide.push(run),
      getFileSystemManager: () => ({
        readFileSync: (path, encoding) => {
          if (!phone.files.has(path)) throw new Error(`readFileSync:fail no such file or directory ${path}`)
          return encoding ? phone.files.get(path).toString(encoding) : phone.files.get(path)
        },
      }),
      request: options => this.#task('request', options),
      uploadFile: options => this.#task('uploadFile', options),
      downloadFile: options => this.#task('downloadFile', options),
      connectSocket: options => this.#socket(options),
    }
  }

  /** One of the three functions that share ten places. */
  #task(kind, options) {
    const { phone, active } = this
    const listeners = { HeadersReceived: [], ChunkReceived: [], ProgressUpdate: [] }
    const tell = (name, event) => listeners[name].forEach(listener => listener(event))
    let request
    let timer
    let done = false
    const finish = (name, result) => {
      if (done) return
      done = true
      clearTimeout(timer)
      active.delete(end)
      request?.destroy()
      setImmediate(() => (options[name]?.(result), options.complete?.(result)))
    }
    const fail = (why, errno) => finish('fail', { errMsg: `${kind}:fail ${why}`, errno })
    const end = why => fail(why)
    const start = () => {
      if (done) return
      // Stricter than a phone, which lets some of them wait: whoever keeps the limit never meets this.
      if (active.size >= 10) return fail('exceed max concurrency')
      active.add(end)
      phone.mostAtOnce = Math.max(phone.mostAtOnce, active.size)
      if (this.hidden) return fail('interrupted')
      if (!phone.online) return fail('errcode:-106 cronet_error_code:-106 error_msg:net::ERR_INTERNET_DISCONNECTED', 600003)
      let sent
      try {
        sent = compose(kind, options, phone)
      } catch (error) {
        return fail(error.message)
      }
      timer = setTimeout(() => fail('timeout', 5), options.timeout ?? 60000)
      const entry = { method: sent.method, path: sent.url.pathname, body: sent.url.pathname.startsWith('/auth/') ? sent.body : undefined }
      phone.requests.push(entry)
      const at = phone.spoilers.findIndex(s => entry.path.endsWith(s.path))
      const spoiler = at < 0 ? {} : phone.spoilers.splice(at, 1)[0]
      if (spoiler.answer) return finish('success', { data: '', header: {}, cookies: [], errMsg: 'request:ok', ...spoiler.answer })
      request = http.request(sent.url, { method: sent.method, headers: sent.headers, agent: phone.agent })
      request.on('error', error => fail(`errcode:-102 error_msg:${error.code}`, 600001))
      request.on('response', async response => {
        const header = {}
        for (let i = 0; i < response.rawHeaders.length; i += 2) header[response.rawHeaders[i]] = response.rawHeaders[i + 1]
        if (!spoiler.lose) tell('HeadersReceived', { header, statusCode: response.statusCode, cookies: [] })
        const chunks = []
        const expected = Number(response.headers['content-length'] ?? 0)
        let written = 0
        try {
          for await (const chunk of response) {
            chunks.push(chunk)
            written += chunk.length
            if (options.enableChunked) tell('ChunkReceived', { data: new Uint8Array(chunk).buffer })
            if (kind === 'downloadFile') {
              const progress = expected ? Math.round((100 * written) / expected) : 0
              tell('ProgressUpdate', { progress, totalBytesWritten: written, totalBytesExpectedToWrite: expected })
            }
          }
        } catch (error) {
          return fail(`errcode:-101 error_msg:${error.code}`, 600001)
        }
        entry.status = response.statusCode
        if (spoiler.lose) return fail('errcode:-101 error_msg:net::ERR_CONNECTION_RESET', 600001)
        const body = Buffer.concat(chunks)
        const common = { statusCode: response.statusCode, errMsg: `${kind}:ok` }
        if (kind === 'uploadFile') return finish('success', { ...common, data: body.toString() })
        if (kind === 'downloadFile') {
          const path = options.filePath ?? `http://tmp/${randomUUID()}`
          phone.files.set(path, body)
          return finish('success', options.filePath ? { ...common, filePath: path } : { ...common, tempFilePath: path })
        }
        const cookies = response.headers['set-cookie'] ?? []
        finish('success', { ...common, header, cookies, data: options.enableChunked ? '' : decode(body, options) })
      })
      if (kind === 'uploadFile') upload(request, sent.body, progress => tell('ProgressUpdate', progress))
      else request.end(sent.body)
    }
    setImmediate(start)
    const task = { abort: () => fail('abort') }
    const names = kind === 'request' ? ['HeadersReceived', 'ChunkReceived'] : ['HeadersReceived', 'ProgressUpdate']
    for (const name of names) {
      task[`on${name}`] = listener => void listeners[name].push(listener)
      task[`off${name}`] = listener => void (listeners[name] = listeners[name].filter(l => listener && l !== listener))
    }
    return task
  }

  #socket(options) {
    const { phone } = this
    const listeners = { Open: [], Message: [], Error: [], Close: [] }
    const tell = (name, event) => setImmediate(() => listeners[name].forEach(listener => listener(event)))
    const socket = new WebSocket(options.url, options.protocols ?? [], { headers: options.header })
    this.sockets.add(socket)
    let header = {}
    socket.on('upgrade', response => (header = response.headers, phone.handshakes.push(101)))
    socket.on('unexpected-response', (request, response) => {
      phone.handshakes.push(response.statusCode)
      request.destroy()
      tell('Error', { errMsg: `Unexpected response code: ${response.statusCode}` })
    })
    socket.on('open', () => tell('Open', { header }))
    socket.on('message', (data, binary) => tell('Message', { data: binary ? new Uint8Array(data).buffer : data.toString() }))
    socket.on('error', error => tell('Error', { errMsg: error.message }))
    socket.on('close', (code, reason) => tell('Close', { code, reason: reason.toString() }))
    setImmediate(() => options.success?.({ errMsg: 'connectSocket:ok' }))
    const task = {
      send: ({ data, success, fail }) =>
        socket.send(data, error => (error ? fail?.({ errMsg: `send:fail ${error}` }) : success?.({ errMsg: 'send:ok' }))),
      close: ({ code = 1000, reason = '' } = {}) => socket.close(code, reason),
    }
    for (const name in listeners) task[`on${name}`] = listener => void listeners[name].push(listener)
    return task
  }
}

/** What is sent: method, address, headers, body. */
function compose(kind, options, phone) {
  const url = new URL(options.url)
  if (!/^https?:$/.test(url.protocol)) throw new Error('invalid url')
  const method = kind === 'uploadFile' ? 'POST' : (options.method ?? 'GET')
  if (!METHODS.includes(method)) throw new Error('method is invalid')
  const headers = { 'content-type': 'application/json' }
  for (const name in options.header) {
    if (name.toLowerCase() === 'referer') continue
    headers[name.toLowerCase()] = String(options.header[name])
  }
  headers.referer = 'https://servicewechat.com/wx0123456789abcdef/0/page-frame.html'
  if (kind === 'downloadFile') return { url, method, headers }
  if (kind === 'uploadFile') {
    const boundary = randomUUID()
    headers['content-type'] = `multipart/form-data; boundary=${boundary}`
    const parts = Object.entries(options.formData ?? {}).map(
      ([name, value]) => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
    )
    const file = phone.files.get(options.filePath)
    if (!file) throw new Error('file not found')
    const filename = options.filePath.replace(/.*\//, '')
    const type = filename.endsWith('.png') ? 'image/png' : 'application/octet-stream'
    const about = `Content-Disposition: form-data; name="${options.name}"; filename="${filename}"\r\nContent-Type: ${type}`
    const head = `${parts.join('')}--${boundary}\r\n${about}\r\n\r\n`
    const body = Buffer.concat([Buffer.from(head), file, Buffer.from(`\r\n--${boundary}--\r\n`)])
    headers['content-length'] = body.length
    return { url, method, headers, body }
  }
  const { data } = options
  if (data === undefined || data === null) return { url, method, headers }
  if (method === 'GET' && typeof data === 'object') {
    for (const name in data) if (data[name] !== undefined) url.searchParams.append(name, data[name])
    return { url, method, headers }
  }
  let body = data
  if (Object.prototype.toString.call(data) === '[object ArrayBuffer]') body = Buffer.from(data)
  else if (typeof data === 'object') {
    body = headers['content-type'].includes('x-www-form-urlencoded')
      ? Object.entries(data).map(pair => pair.map(encodeURIComponent).join('=')).join('&')
      : JSON.stringify(data)
  }
  headers['content-length'] = Buffer.byteLength(body)
  return { url, method, headers, body }
}

function decode(body, { dataType = 'json', responseType }) {
  if (responseType === 'arraybuffer') return new Uint8Array(body).buffer
  const text = body.toString().replace(/^\uFEFF/, '')
  if (dataType !== 'json') return text
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** In pieces, each acknowledged by an event. */
function upload(request, body, tell) {
  const size = 16384
  const piece = at => {
    if (at >= body.length) return request.end()
    request.write(body.subarray(at, at + size), () => {
      const sent = Math.min(at + size, body.length)
      tell({ progress: Math.round((100 * sent) / body.length), totalBytesSent: sent, totalBytesExpectedToSend: body.length })
      piece(at + size)
    })
  }
  piece(0)
}

export function fetchText(phone, url, options = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { agent: phone?.agent, ...options }, async response => {
      const chunks = []
      for await (const chunk of response) chunks.push(chunk)
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() })
    })
    request.on('error', reject)
    request.end(options.body)
  })
}
