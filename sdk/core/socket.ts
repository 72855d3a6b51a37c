// A socket over all its connections: each with a token that is good, the next one after a pause.

import { platform } from './platform'
import { foreground, wait } from './runtime'
import { assign, fault, join, settle } from './wire'
import { Why, sign } from './session'
import type { Sessions, Tokens } from './session'
import type { SocketTask } from './platform'
import type { GatewayError, GatewaySocket, SocketOptions } from './types'

/** Longest pause between attempts, seconds; the first is one second, each next one twice as long. */
const LONGEST = 30
/** How the gateway says that the token of a connection is over; the reason says how. */
const OVER = 4001
/** Closes after which another attempt is useless: the end of the talk, no longer allowed, no such route any more. */
const FINAL = /^(1000|4001forbidden|1001route_removed)/

export function connectSocket(sessions: Sessions, base: string, options: SocketOptions): GatewaySocket {
  const { auth = true, reconnect = true } = options
  const on: Record<string, Array<(event: any) => void>> = { Open: [], Message: [], Error: [], Close: [] }
  const emit = (name: string, event: any) => on[name].forEach(listener => listener(event))
  let task: SocketTask | undefined
  let used: Tokens | undefined | false
  let open: boolean
  let ended: boolean
  let renewed: boolean
  let attempts = 0

  const connect = async () => {
    const url = join(base, options.url.replace(/^ws/, 'http'))
    if (!url) throw fault('connectSocket', 'foreign_url')
    used = auth && (await sessions.get(auth))
    if (ended) return
    const lost = (event: any) => {
      if (task === started) again(event)
    }
    const started = (task = platform.connectSocket!(
      assign({}, options, {
        url: url.replace(/^http/, 'ws'),
        header: sign(options.header, used),
        success: null,
        fail: lost,
        complete: null,
      }),
    ))
    started.onOpen(event => {
      open = true
      renewed = false
      attempts = 0
      if (used) sessions.proven()
      emit('Open', event)
    })
    started.onMessage(event => emit('Message', event))
    started.onError(event => {
      emit('Error', event)
      lost(event)
    })
    started.onClose(lost)
  }

  /** After a lost connection, or an attempt that failed. */
  const again = async ({ code = 1006, reason = '', errMsg }: any) => {
    const refused = !open || code === OVER
    open = false
    task = undefined
    ended = ended || !reconnect || FINAL.test(code + reason)
    emit('Close', { code, reason: reason || errMsg, reconnecting: !ended })
    if (ended) return
    await wait(Math.min(LONGEST, 2 ** attempts++))
    await foreground()
    if (ended) return
    try {
      // Nobody tells why a handshake failed: once, another token. A session that is over leads to a login.
      if (used && refused && !renewed) {
        renewed = true
        await sessions.renew(used, Why.Expired)
      }
      await connect()
    } catch (error) {
      failed(error as GatewayError)
    }
  }

  /** No token, no connection: a fault of the network passes, a refusal does not. */
  const failed = (error: GatewayError) => {
    emit('Error', error)
    if (/^(logged_out|foreign_url)$/.test(error.code) || error.status === 403) ended = true
    again({ errMsg: error.errMsg })
  }

  const first = connect()
  settle(first, options as any)
  first.catch(failed)

  const socket: any = {
    send(message: any) {
      if (open) task!.send(message)
      else if (message.fail) message.fail(fault('sendSocketMessage', 'network_error'))
    },
    close(how: any = {}) {
      ended = true
      if (task) task.close(how)
    },
  }
  for (const name in on) socket[`on${name}`] = (listener: any) => void on[name].push(listener)
  return socket
}
