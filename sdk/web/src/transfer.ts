// wx.request, wx.uploadFile and wx.downloadFile, made of fetch and, where the progress of what is sent is to be seen,
// XMLHttpRequest.

import type { TransferTask } from '../../core/platform'

/** As WeChat's, milliseconds. */
const TIMEOUT = 60000

/** The gateways whose cookies go along, also from another origin. */
const withCookies: string[] = []

export function sendCookies(base: string): void {
  withCookies.push(base)
}

const hasCookies = (url: string) => withCookies.some(base => url.startsWith(`${base}/`))

type Listeners = Record<string, Array<(event: any) => void>>

/** A task with its listeners; `end` ends what is under way, for the given reason. */
function task(
  kind: string,
  options: any,
  events: string[],
  run: (signal: AbortSignal, tell: (name: string, event: any) => void) => Promise<any>,
): TransferTask {
  const listeners: Listeners = {}
  const control = new AbortController()
  let why = ''
  const end = (reason: string) => {
    why = reason
    control.abort()
  }
  const { timeout = TIMEOUT } = options
  const timer = timeout && setTimeout(end, timeout, 'timeout')
  const result: any = { abort: () => end('abort') }
  for (const name of events) {
    listeners[name] = []
    result[`on${name}`] = (listener: any) => void listeners[name].push(listener)
  }
  const tell = (name: string, event: any) => listeners[name].forEach(listener => listener(event))
  // Listeners are added once the task is there.
  Promise.resolve()
    .then(() => run(control.signal, tell))
    .then(
      answer => options.success(Object.assign({ errMsg: `${kind}:ok` }, answer)),
      error => options.fail({ errMsg: `${kind}:fail ${why || error.message}` }),
    )
    .then(() => clearTimeout(timer))
  return result
}

const headersOf = (response: Response) => {
  const header: Record<string, string> = {}
  response.headers.forEach((value, name) => (header[name] = value))
  return header
}

const headers = (given: any) => {
  const all = new Headers()
  for (const name in given) if (given[name] !== undefined) all.set(name, given[name])
  return all
}

const isPlain = (data: any) => /^\[object (Object|Array)\]$/.test({}.toString.call(data))

/** What is sent: objects as JSON or as a form, in the query of a GET; everything else as it is. */
function compose(options: any): { url: string; init: RequestInit } {
  const { method = 'GET', data } = options
  const own = headers(options.header)
  const init: RequestInit = { method, headers: own, redirect: options.redirect, ...options.init }
  if (hasCookies(options.url)) init.credentials = 'include'
  if (data === undefined || data === null) return { url: options.url, init }
  if (isPlain(data) && /^(GET|HEAD)$/.test(method)) {
    const url = new URL(options.url)
    for (const name in data) if (data[name] !== undefined) url.searchParams.append(name, data[name])
    return { url: url.href, init }
  }
  if (!isPlain(data)) {
    init.body = data
    if (typeof data === 'string' && !own.has('content-type') && !options.init) own.set('content-type', 'application/json')
  } else if ((own.get('content-type') || '').includes('x-www-form-urlencoded')) {
    init.body = new URLSearchParams(data)
  } else {
    if (!own.has('content-type')) own.set('content-type', 'application/json')
    init.body = JSON.stringify(data)
  }
  return { url: options.url, init }
}

function decode(text: string, dataType = 'json') {
  if (dataType !== 'json') return text
  try {
    return JSON.parse(text)
  } catch (_) {
    return text
  }
}

/** The pieces of a body, as they come. */
async function* pieces(response: Response) {
  const reader = response.body!.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield value
  }
}

export function request(options: any): TransferTask {
  return task('request', options, ['HeadersReceived', 'ChunkReceived'], async (signal, tell) => {
    const { url, init } = compose(options)
    const response = await fetch(url, { ...init, signal })
    const header = headersOf(response)
    const answer = { statusCode: response.status, header, cookies: [] }
    tell('HeadersReceived', { header, statusCode: response.status, cookies: [] })
    if (options.init) {
      // The body is the caller's; of a refusal a copy is read.
      return { ...answer, response, data: response.status > 399 ? decode(await response.clone().text()) : '' }
    }
    if (options.enableChunked && response.body) {
      for await (const piece of pieces(response)) tell('ChunkReceived', { data: piece.buffer })
      return { ...answer, data: '' }
    }
    if (options.responseType === 'arraybuffer') return { ...answer, data: await response.arrayBuffer() }
    return { ...answer, data: decode(await response.text(), options.dataType) }
  })
}

export function downloadFile(options: any): TransferTask {
  return task('downloadFile', options, ['HeadersReceived', 'ProgressUpdate'], async (signal, tell) => {
    const response = await fetch(options.url, {
      headers: headers(options.header),
      credentials: hasCookies(options.url) ? 'include' : 'same-origin',
      signal,
    })
    const header = headersOf(response)
    const answer = { statusCode: response.status, header }
    tell('HeadersReceived', { header })
    if (!response.ok) return { ...answer, data: decode(await response.text()), blob: new Blob() }
    const expected = Number(header['content-length'] || 0)
    const parts: any[] = []
    let written = 0
    if (response.body) {
      for await (const piece of pieces(response)) {
        parts.push(piece)
        written += piece.length
        const progress = expected ? Math.round((100 * written) / expected) : 0
        tell('ProgressUpdate', { progress, totalBytesWritten: written, totalBytesExpectedToWrite: expected })
      }
    }
    return { ...answer, blob: new Blob(parts, { type: header['content-type'] }) }
  })
}

export function uploadFile(options: any): TransferTask {
  return task('uploadFile', options, ['HeadersReceived', 'ProgressUpdate'], (signal, tell) => {
    const { file, name, fileName, formData = {} } = options
    const form = new FormData()
    for (const field in formData) form.append(field, formData[field])
    if (fileName || file.name) form.append(name, file, fileName || file.name)
    else form.append(name, file)
    const xhr = new XMLHttpRequest()
    xhr.open('POST', options.url)
    xhr.withCredentials = hasCookies(options.url)
    headers(options.header).forEach((value, header) => xhr.setRequestHeader(header, value))
    signal.addEventListener('abort', () => xhr.abort())
    xhr.upload.onprogress = ({ loaded, total }) =>
      tell('ProgressUpdate', {
        progress: Math.round((100 * loaded) / total),
        totalBytesSent: loaded,
        totalBytesExpectedToSend: total,
      })
    return new Promise((resolve, reject) => {
      xhr.onload = () => {
        const header: Record<string, string> = {}
        for (const line of xhr.getAllResponseHeaders().trim().split(/\r\n/)) {
          const at = line.indexOf(': ')
          header[line.slice(0, at)] = line.slice(at + 2)
        }
        tell('HeadersReceived', { header })
        resolve({ statusCode: xhr.status, header, data: xhr.responseText })
      }
      xhr.onerror = xhr.onabort = () => reject(new Error('network error'))
      xhr.send(form)
    })
  })
}
