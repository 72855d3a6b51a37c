import { createBase } from '../../core/gateway'
import { connectSocket } from '../../core/socket'
import { assign, settle } from '../../core/wire'
import { container } from './container'
import { openDataOf } from './open-data'
import type { Gateway, MiniProgramOptions } from './types'
export type * from './types'

/** The gateway at `baseURL`. One per app is enough; several of the same address share what is stored. */
export function createGateway(options: MiniProgramOptions): Gateway {
  const { gateway, base, sessions, calling, ask } = createBase(options, how => wx.login(how))
  const { open, check } = openDataOf(sessions, ask)
  return assign(gateway, {
    connectSocket: given => connectSocket(sessions, base, given),
    callContainer: container(calling, options),
    phone: (given, callbacks) =>
      settle(typeof given === 'string' ? ask('POST', '/phone', { code: given }) : open('/phone', given), callbacks),
    profile: (given: any, callbacks) =>
      settle(given.call || given.iv ? open('/profile', given) : ask('PUT', '/me', given), callbacks),
    openData: (given, callbacks) => settle(open('/open-data', given), callbacks),
    checkSession: callbacks => settle(check(), callbacks),
  } as Omit<Gateway, keyof typeof gateway>)
}
