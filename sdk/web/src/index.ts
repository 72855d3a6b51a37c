import { createBase } from '../../core/gateway'
import { install } from '../../core/platform'
import { Why, storageKey } from '../../core/session'
import { connectSocket } from '../../core/socket'
import { assign, fault, settle } from '../../core/wire'
import { connectSocket as openSocket } from './socket'
import { downloadFile, request, sendCookies, uploadFile } from './transfer'
import { webLogin } from './web-login'
import type { FetchOptions, Gateway, Session, WebOptions } from './types'
export type * from './types'

const platform = {
  request,
  uploadFile,
  downloadFile,
  connectSocket: openSocket,
  getStorageSync: (key: string) => JSON.parse(localStorage.getItem(key) || '""'),
  setStorageSync: (key: string, value: any) => localStorage.setItem(key, JSON.stringify(value)),
}
install(platform)

/** The gateway at `baseURL`. One per app is enough; the tabs of a browser share what is stored. */
export function createGateway(options: WebOptions): Gateway {
  const { authBase = '/auth', appid, autoLogin, cookie, storage = platform, onAuthChange } = options
  const at = options.baseURL.replace(/\/+$/, '')
  const web = webLogin(at + authBase, appid, autoLogin, cookie)
  if (cookie) {
    sendCookies(at)
    const now = Date.now()
    try {
      // The cookies are there, and a refresh tells whose they are: as if a token of this moment had run out.
      if (web.isBack) storage.setStorageSync(storageKey(at, appid), { answer: { expires_in: 0 }, at: now, login: now })
    } catch (_) {
      // Nothing can be kept: the page asks for a login.
    }
  }
  const { gateway, base, sessions, calling, ask } = createBase(options, web.login)
  const { login } = gateway
  const session = (): Session | null => {
    const found = sessions.session()
    return found && found.openid ? found : null
  }

  // Back from WeChat: whoever was logged in before, it is this person now.
  const arrive = async () => {
    if (!web.isBack) return
    await sessions.renew(sessions.current(), cookie ? Why.Expired : Why.Asked)
    if (cookie && onAuthChange) onAuthChange(session())
  }
  const ready = arrive().then(web.settled, web.settled).then(session)

  Object.defineProperty(gateway, 'session', { get: session })
  return assign(gateway, {
    ready,
    login(how: any = {}) {
      web.returnTo(how.redirect)
      return login(how)
    },
    connectSocket(given: any) {
      if (!cookie) throw fault('connectSocket', 'cookie_needed')
      return connectSocket(sessions, base, given)
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
