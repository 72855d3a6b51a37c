// What goes over the wire, read and written: addresses, headers, refusals. And the two forms of an outcome.

import type { Callbacks, GatewayError } from './types'

export const { assign } = Object

/** An error value. `api` is the name in `errMsg`. */
export function fault(api: string, code: string, more: Partial<GatewayError> = {}): GatewayError {
  const errMsg = more.errMsg || `${api}:fail ${code}`
  return assign(new Error(errMsg) as GatewayError, { name: 'GatewayError' }, more, { code, errMsg })
}

/** The callback style beside the promise. With callbacks, a rejection counts as seen. */
export function settle<P extends Promise<any>>(promise: P, { success, fail, complete }: Callbacks<any> = {}): P {
  const tell = (first?: (outcome: any) => void) => (outcome: any) => {
    if (first) first(outcome)
    if (complete) complete(outcome)
  }
  if (success || fail || complete) promise.then(tell(success), tell(fail))
  return promise
}

/** `url` under `base`; `undefined` when it is somebody else's address: a token must not go there. */
export function join(base: string, url: string): string | undefined {
  return (url + '/').startsWith(base + '/')
    ? url
    : /^\w[\w+.-]*:/.test(url)
      ? undefined
      : base + url.replace(/^\/?/, '/')
}

/** A header by name: WeChat passes on whatever case the server or the platform used. */
export function headerOf(header: any, name: string): string {
  for (const key in header) if (key.toLowerCase() === name) return '' + header[key]
  return ''
}

/** Whether these are the headers of the gateway's own 401. */
export function challenged(header: any): boolean {
  return headerOf(header, 'www-authenticate').includes('realm="wxgate"')
}

/**
 * The refusal in an answer; nothing when the service behind the gateway has answered, whatever it said. `strict`: of
 * the gateway's own endpoints, where every status from 300 on is a refusal.
 */
export function problemOf(api: string, answer: any, strict?: boolean): GatewayError | false | undefined {
  const { statusCode: status, header } = answer
  let body = answer.data
  if (status < 400) body = 0
  try {
    if (body.byteLength) body = String.fromCharCode.apply(0, new Uint8Array(body) as any)
    body = JSON.parse(body)
  } catch (_) {
    // An object already; or not JSON, or far too long: no problem document.
  }
  if (body && ('' + body.type).startsWith('urn:wxgate:problem:')) {
    return fault(api, body.code, assign(body, { status, retryAfter: +headerOf(header, 'retry-after') || undefined }))
  }
  // The body may be out of reach (chunked, a file): then the challenge still says who refused.
  return status === 401 && challenged(header)
    ? fault(api, 'token_expired', { status })
    : strict && status > 299 && fault(api, 'bad_answer', { status })
}
