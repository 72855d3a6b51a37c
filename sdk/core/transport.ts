// One attempt over the network, through one of the platform's three functions. Knows nothing of tokens.

import { platform } from './platform'
import { enqueue } from './runtime'
import { assign, challenged, fault } from './wire'

export type Kind = 'request' | 'uploadFile' | 'downloadFile'

/** What outlives the attempts of a call: its listeners by event, and how to end the attempt under way. */
export interface Flow {
  listeners: Record<string, Array<(event: any) => void>>
  cancel?: () => void
  aborted?: boolean
}

/** `first`: ahead of everything that waits, for the calls that others wait for. */
export function send(kind: Kind, options: any, flow: Flow, first?: boolean): Promise<any> {
  return new Promise((resolve, reject) => {
    let task: any
    const leave = enqueue(release => {
      let header: any
      try {
        task = platform[kind](
          assign({}, options, {
            complete: null,
            success(result: any) {
              release()
              // Uploads and downloads give headers to listeners only.
              resolve(assign({ header }, result))
            },
            fail({ errMsg, errno }: any) {
              release()
              const [why] = /interrupted|timeout/.exec(('' + errMsg).replace(/timed.out/i, 'timeout')) || ['network_error']
              reject(fault(kind, why, { errMsg, errno }))
            },
          }),
        )
      } catch (error) {
        // Parameters that WeChat does not even look at.
        release()
        return reject(error)
      }
      for (const name in flow.listeners) {
        if (!task[`on${name}`]) continue
        task[`on${name}`]((event: any) => {
          header = event.header || header
          // The body of a refusal is not what the page waits for: the call may be repeated.
          if (!challenged(header)) flow.listeners[name].forEach(listener => listener(event))
        })
      }
    }, first)
    flow.cancel = () => (task ? task.abort() : leave())
  })
}
