// What every client has: who is logged in, and calls in their name. Each package adds what only its own platform can do.

import { caller } from './call'
import { watch } from './runtime'
import { Why, createSessions } from './session'
import { problemOf, settle } from './wire'
import type { Credential } from './platform'
import type { GatewayBase, GatewayOptions } from './types'

/** `gateway` is what a package gives to its users, when it has added its own; the rest is what it adds that with. */
export function createBase(options: GatewayOptions, getCredential: Credential) {
  const { authBase = '/auth' } = options
  const base = options.baseURL.replace(/\/+$/, '')
  const sessions = createSessions(base, authBase, getCredential, options)
  const calling = caller(sessions, base)
  watch()

  /** Of the gateway's own endpoints: what it answers, or the refusal. */
  const ask = (method: string, path: string, data?: object): Promise<any> =>
    calling('request', { url: authBase + path, method, data }, (answer: any) => {
      const problem = problemOf('request', answer, true)
      if (problem) throw problem
      return answer.data
    })

  const gateway: GatewayBase = {
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
    me: callbacks => settle(ask('GET', '/me'), callbacks),
    erase: callbacks => settle(ask('DELETE', '/me').then(() => sessions.end()), callbacks),
  }
  return { gateway, base, sessions, calling, ask }
}
