import { createBase } from '../../core/gateway'
import { install } from '../../core/platform'
import { Why } from '../../core/session'
import { assign, settle } from '../../core/wire'
import { downloadFile, request, uploadFile } from './transfer'
import { webLogin } from './web-login'
import type { FetchOptions, Gateway, WebOptions } from './types'
export type * from './types'

install({
  request,
  uploadFile,
  downloadFile,
  getStorageSync: key => JSON.parse(localStorage.getItem(key) || '""'),
  setStorageSync: (key, value) => localStorage.setItem(key, JSON.stringify(value)),
})

/** The gateway at `baseURL`. One per app is enough; the tabs of a browser share what is stored. */
export function createGateway(options: WebOptions): Gateway {
  const { baseURL, authBase = '/auth', appid, autoLogin } = options
  const web = webLogin(baseURL.replace(/\/+$/, '') + authBase, appid, autoLogin)
  const { gateway, sessions, calling, ask } = createBase(options, web.login)
  const { login } = gateway

  // Back from WeChat: whoever was logged in before, it is this person now.
  const arrived = web.hasTicket ? sessions.renew(sessions.current(), Why.Asked) : Promise.resolve()
  const ready = arrived.then(web.settled, web.settled).then(() => gateway.session)

  return assign(gateway, {
    ready,
    login(how: any = {}) {
      web.returnTo(how.redirect)
      return login(how)
    },
    fetch: (url: string, { auth, body, method, headers, ...init }: FetchOptions = {}) => {
      const header: Record<string, string> = {}
      new Headers(headers).forEach((value, name) => (header[name] = value))
      const { signal } = init
      const task = calling(
        'request',
        { url, auth, method: method && method.toUpperCase(), header, data: body, init, timeout: 0 },
        (answer: any) => answer.response,
      )
      if (signal) {
        if (signal.aborted) task.abort()
        signal.addEventListener('abort', task.abort)
      }
      return task
    },
    profile: (info: any, callbacks: any) => settle(ask('PUT', '/me', info), callbacks),
  }) as Gateway
}
