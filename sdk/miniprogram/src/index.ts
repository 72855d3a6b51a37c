import { call } from './call'
import { watch } from './runtime'
import { Why, createSessions } from './session'
import { connectSocket } from './socket'
import { assign, headerOf, problemOf, settle } from './wire'
export type * from './types'
import type { Kind } from './transport'
import type { Gateway, GatewayOptions, OpenDataSource } from './types'

/** The gateway at `baseURL`. One per app is enough; several of the same address share what is stored. */
export function createGateway(options: GatewayOptions): Gateway {
  const { authBase = '/auth', services = {} } = options
  const base = options.baseURL.replace(/\/+$/, '')
  const sessions = createSessions(base, authBase, options)
  watch()

  const calling = (kind: Kind, given: any, shape?: any, blame?: any): any =>
    call(sessions, base, kind, given, shape, blame)

  const ask = (method: string, path: string, data?: object): Promise<any> =>
    calling('request', { url: authBase + path, method, data }).then((answer: any) => {
      const problem = problemOf('request', answer, true)
      if (problem) throw problem
      return answer.data
    })

  /** For whoever asks the user again: then the key is in order. */
  const anotherLogin = () => sessions.renew(sessions.current(), Why.Key)

  const checkSession = async () => {
    await sessions.get(true)
    const good = await new Promise<boolean>(resolve => {
      wx.checkSession({ success: () => resolve(true), fail: () => resolve(false) })
    })
    if (!good) await anotherLogin()
    return good
  }

  /** Open data to an endpoint. A blob that cannot be opened is never sent twice: WeChat is asked for another one. */
  const open = async (path: string, source: OpenDataSource): Promise<any> => {
    const asks = typeof source === 'function'
    if (asks) await checkSession()
    for (let repeats = 0; ; repeats++) {
      try {
        const { encryptedData, iv, rawData, signature } = asks ? await source() : source
        return await ask('POST', path, { encryptedData, iv, rawData, signature })
      } catch (error) {
        if ((error as any).code !== 'decrypt_failed' || repeats) throw error
        await anotherLogin()
        if (!asks) throw error
      }
    }
  }

  return {
    get session() {
      return sessions.session()
    },
    login: (how = {}) =>
      settle(
        (how.force || !sessions.current() ? sessions.renew(sessions.current(), Why.Asked) : sessions.get(true)).then(
          () => sessions.session()!,
        ),
        how,
      ),
    logout: (how = {}) => settle(sessions.end(how), how),
    request: given => calling('request', given),
    upload: given => calling('uploadFile', given),
    download: given => calling('downloadFile', given),
    connectSocket: given => connectSocket(sessions, base, given),
    callContainer(given) {
      const { path, service, method = 'GET', header, followRedirect } = given
      return calling(
        'request',
        assign({}, given, {
          url: (services[service || headerOf(header, 'x-wx-service')] || '') + path,
          method: method.toUpperCase(),
          redirect: followRedirect === false ? 'manual' : undefined,
        }),
        (result: any) =>
          assign(result, { callID: headerOf(result.header, 'x-request-id'), errMsg: 'cloud.callContainer:ok' }),
        (error: any) =>
          assign(error, {
            errMsg: error.errMsg.replace(/^\w+/, 'cloud.callContainer'),
            errCode: error.code === 'timeout' ? 102002 : -1,
          }),
      )
    },
    me: callbacks => settle(ask('GET', '/me'), callbacks),
    erase: callbacks => settle(ask('DELETE', '/me').then(() => sessions.end()), callbacks),
    phone: (given, callbacks) =>
      settle(typeof given === 'string' ? ask('POST', '/phone', { code: given }) : open('/phone', given), callbacks),
    profile: (given: any, callbacks) =>
      settle(given.call || given.iv ? open('/profile', given) : ask('PUT', '/me', given), callbacks),
    openData: (given, callbacks) => settle(open('/open-data', given), callbacks),
    checkSession: callbacks => settle(checkSession(), callbacks),
  }
}
