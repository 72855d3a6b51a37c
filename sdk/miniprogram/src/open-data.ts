// WeChat's encrypted data: the key in order before it is asked for, and never the same data twice.

import { Why } from '../../core/session'
import type { Sessions } from '../../core/session'
import type { OpenDataSource } from './types'

export function openDataOf(sessions: Sessions, ask: (method: string, path: string, data: object) => Promise<any>) {
  /** For whoever asks the user again: then the key is in order. */
  const anotherLogin = () => sessions.renew(sessions.current(), Why.Key)

  const check = async () => {
    await sessions.get(true)
    const good = await new Promise<boolean>(resolve => {
      wx.checkSession({ success: () => resolve(true), fail: () => resolve(false) })
    })
    if (!good) await anotherLogin()
    return good
  }

  /** Open data to an endpoint. Data that cannot be opened are never sent twice: WeChat is asked for others. */
  const open = async (path: string, source: OpenDataSource): Promise<any> => {
    const asks = typeof source === 'function'
    let failed: any
    let old
    if (asks) await check()
    for (;;) {
      const { encryptedData, iv, rawData, signature } = asks ? await source() : source
      if (failed && encryptedData === old) throw failed
      try {
        return await ask('POST', path, { encryptedData, iv, rawData, signature })
      } catch (error) {
        if ((error as any).code !== 'decrypt_failed' || failed) throw error
        failed = error
        old = encryptedData
        await anotherLogin()
      }
    }
  }

  return { open, check }
}
