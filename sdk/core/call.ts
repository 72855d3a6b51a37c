// One call of a service: with a token, and repeated once where a repeat helps and harms nobody.

import { platform } from './platform'
import { foreground, wait } from './runtime'
import { PATIENCE, Why, sign } from './session'
import { send } from './transport'
import { assign, fault, join, problemOf, settle } from './wire'
import type { Sessions } from './session'
import type { Flow, Kind } from './transport'
import type { GatewayError, GatewayTask } from './types'

/** What a 401 asks for. Others are the caller's business. */
const REMEDY: Record<string, Why> = {
  token_expired: Why.Expired,
  token_missing: Why.Over,
  token_invalid: Why.Over,
  token_revoked: Why.Over,
  session_key_stale: Why.Key,
}

/** Calls in the name of who is logged in. `shape` makes the result, `blame` completes the error. */
export function caller(sessions: Sessions, base: string) {
  return (
    kind: Kind,
    given: any,
    shape?: (result: any) => any,
    blame?: (error: GatewayError) => GatewayError,
  ): GatewayTask<any> => {
    const { auth = true, idempotent = kind !== 'uploadFile' && /^(GET|HEAD)?$/.test(given.method || '') } = given
    const flow: Flow = { listeners: { HeadersReceived: [], ChunkReceived: [], ProgressUpdate: [] } }

    const run = async (): Promise<any> => {
      const url = join(base, given.url)
      if (!url) throw fault(kind, 'foreign_url')
      // Each remedy is tried once.
      let renewed, waited, resumed
      for (;;) {
        const used = auth && (await sessions.get(auth))
        if (flow.aborted) return
        let result
        try {
          result = await send(kind, assign({}, given, { url, header: sign(given.header, used) }), flow)
        } catch (error) {
          if (!idempotent || resumed || (error as GatewayError).code !== 'interrupted') throw error
          resumed = true
          await foreground()
          continue
        }
        // A refused download is a file that holds the problem.
        const path = result.statusCode > 399 && (result.filePath || result.tempFilePath)
        try {
          if (path) result.data = platform.getFileSystemManager!().readFileSync(path, 'utf8')
        } catch (_) {
          // The headers will do.
        }
        const problem = problemOf(kind, result)
        const { code, status, retryAfter } = problem || ({} as GatewayError)
        if (used && status !== 401) sessions.proven()
        if (!problem) return result
        if (status === 401 && used && !renewed && REMEDY[code]) {
          renewed = true
          await sessions.renew(used, REMEDY[code])
        } else if (retryAfter! <= PATIENCE && !waited) {
          // 429 or 503 of the gateway: no service has seen the call, whatever its method.
          waited = true
          await wait(retryAfter!)
        } else {
          throw problem
        }
      }
    }

    let abort
    const task: any = new Promise((resolve, reject) => {
      abort = () => {
        flow.aborted = true
        reject(fault(kind, 'aborted', { errMsg: `${kind}:fail abort` }))
        if (flow.cancel) flow.cancel()
      }
      run().then(resolve, reject)
    }).then(shape, blame && (error => Promise.reject(blame(error))))
    task.abort = abort
    for (const name in flow.listeners) {
      task[`on${name}`] = (listener: any) => flow.listeners[name].push(listener)
      task[`off${name}`] = (listener: any) => {
        flow.listeners[name] = flow.listeners[name].filter(each => listener && each !== listener)
      }
    }
    return settle(task, given)
  }
}
