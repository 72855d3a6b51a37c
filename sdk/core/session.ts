// Who is logged in: the token pair, and the one operation at a time that may change it.

import { platform } from './platform'
import { foreground, wait } from './runtime'
import { send } from './transport'
import { assign, fault, problemOf } from './wire'
import type { Credential } from './platform'
import type { GatewayError, GatewayOptions, Session } from './types'

/** A token answer of the gateway, when it came (the device's clock, ms), and which login it descends from. */
export interface Tokens {
  answer: any
  at: number
  login: number
}

/** What is stored: tokens; or that the user has logged out, so that nothing logs in silently; or nothing. */
type Stored = Partial<Tokens> & { out?: boolean }

/**
 * Why other tokens are needed: these have expired, their session is over, WeChat's session_key is not in order, or the
 * page asked.
 */
export const enum Why {
  Expired = 1,
  Over,
  Key,
  Asked,
}

export type Sessions = ReturnType<typeof createSessions>

/** Longest wait for a Retry-After before the caller is told instead, seconds. */
export const PATIENCE = 10
/** Time-out of the calls to /auth, milliseconds. */
const TIMEOUT = 15000
/** How long before its end a token is renewed: a tenth of its life, at most this, milliseconds. */
const AHEAD = 300000
/** How long after a refused login (403), or a useless one, none is tried silently, seconds. */
const REFUSED = 60

/** The headers, with the token; without where a cookie carries it. */
export function sign(header: any, used: Tokens | undefined | false): any {
  const token = used && used.answer.access_token
  return assign({}, header, token && { Authorization: 'Bearer ' + token })
}

/** Where the tokens of an app are stored. */
export const storageKey = (base: string, appid?: string) => `wxgate:${base}:${appid || ''}`

export function createSessions(
  base: string,
  authBase: string,
  getCredential: Credential,
  { appid, storage = platform, onAuthChange }: GatewayOptions,
) {
  const key = storageKey(base, appid)
  let stored: Stored = {}
  /** Storage cannot be written: what stands there is old. */
  let broken: boolean
  /** The login, refresh or logout under way; and whether it is a renewal ahead of time, for which nobody waits. */
  let flight: Promise<any> | undefined
  let ahead: boolean
  let nextAhead = 0
  /** Logins in a row whose token nobody has accepted yet, and when the last of them was. */
  let unproven = 0
  let lastLogin = 0
  /** What the gateway said last of waiting, and until when. */
  let held: GatewayError | undefined
  let heldUntil = 0

  /** Storage is the truth: another instance (a subpackage) may have written. */
  const load = () => {
    try {
      const found = broken || storage.getStorageSync(key)
      if (found.answer || found.out) stored = found
    } catch (_) {
      // Memory has to do.
    }
  }

  const save = (next: Stored) => {
    stored = next
    broken = true
    try {
      storage.setStorageSync(key, next)
      broken = false
    } catch (_) {
      // As above.
    }
  }

  const current = () => (stored.answer ? (stored as Tokens) : undefined)

  const session = (): Session | null => {
    if (!stored.answer) return null
    const copy = assign({}, stored.answer)
    delete copy.access_token
    delete copy.refresh_token
    return copy
  }

  /** Not inside the login: the listener may make calls, and its faults are its own. */
  const changed = () => {
    const who = session()
    if (onAuthChange) wait(0).then(() => onAuthChange(who))
  }

  const postOnce = async (path: string, data: object) => {
    const result = await send('request', { url: base + authBase + path, method: 'POST', data, timeout: TIMEOUT }, {} as any, true)
    const problem = problemOf('request', result, true)
    if (!problem) return result.data
    const seconds = problem.retryAfter || (problem.status === 403 ? REFUSED : 0)
    if (seconds) {
      held = problem
      heldUntil = Date.now() + seconds * 1000
    }
    throw problem
  }

  /** POST to /auth, repeated where that can help. */
  const post = async (path: string, makeBody: () => any) => {
    let body = await makeBody()
    for (let repeats = 0; ; repeats++) {
      try {
        return await postOnce(path, body)
      } catch (error) {
        const { code, status, retryAfter } = error as GatewayError
        if (repeats > 1 || (repeats && !status)) throw error
        if (!status) {
          // No answer came. The same question again: the gateway gives the same answer.
          await foreground()
          continue
        }
        if (retryAfter! <= PATIENCE) await wait(retryAfter!)
        else if (!/^code_/.test(code)) throw error
        body = await makeBody()
      }
    }
  }

  const keep = (answer: any, login: number) => {
    if (!answer.expires_in) throw fault('login', 'bad_answer')
    const tokens = { answer, at: Date.now(), login }
    save(tokens)
    return tokens
  }

  /** What the platform has to show for the person before it. */
  const credential = (asked: boolean) =>
    new Promise((resolve, reject) => {
      getCredential({
        asked,
        success: ({ code, ticket }) => resolve({ code, ticket, appid }),
        fail: error => reject(fault('login', error.code || 'login_failed', error)),
      })
    })

  const logIn = async (why: Why): Promise<Tokens> => {
    const now = Date.now()
    // Tokens that are refused as soon as they are made: more of them will not help.
    if (why !== Why.Asked && unproven > 1 && now < lastLogin + REFUSED * 1000) {
      throw fault('login', 'token_invalid', { status: 401 })
    }
    try {
      const tokens = keep(await post('/login', () => credential(why === Why.Asked)), now)
      unproven++
      lastLogin = now
      changed()
      return tokens
    } catch (error) {
      // The old session is over, and there will be no new one.
      if (why === Why.Over && (error as GatewayError).status === 403) {
        save({})
        changed()
      }
      throw error
    }
  }

  /** Runs the operation while everybody else waits for it. */
  const alone = <T>(operation: () => Promise<T>): Promise<T> => {
    const land = () => {
      flight = undefined
      ahead = false
    }
    const started = operation()
    flight = started
    started.then(land, land)
    return started
  }

  /** Other tokens than these, by a refresh or a login. What somebody else has already got will do. */
  const renew = async (used: Tokens | undefined, why: Why): Promise<Tokens> => {
    while (flight) await flight
    load()
    // Also when another tab, or another part of the app, did it.
    if (stored.out && why !== Why.Asked) throw fault('request', 'logged_out')
    const tokens = current()
    if (tokens && (!used || (why === Why.Expired ? tokens.at !== used.at : tokens.login !== used.login))) return tokens
    return alone(async () => {
      const now = Date.now()
      if (now < heldUntil && !(why === Why.Asked && held!.status === 403)) {
        throw assign(fault('login', held!.code, held), { retryAfter: Math.ceil((heldUntil - now) / 1000) })
      }
      if (tokens && why === Why.Expired) {
        try {
          const { refresh_token } = tokens.answer
          return keep(await post('/refresh', () => ({ refresh_token })), tokens.login)
        } catch (error) {
          // 400 and 401: this refresh token leads nowhere.
          if (!/40[01]/.test((error as any).status)) throw error
          why = Why.Over
        }
      }
      return logIn(why)
    })
  }

  /** Tokens for a call that is about to be sent; renewed first when they have run out. */
  const get = async (auth: true | 'optional'): Promise<Tokens | undefined> => {
    while (flight && !ahead) await (auth === true ? flight : flight.catch(() => {}))
    const tokens = current()
    if (!tokens) {
      return auth === true ? renew(tokens, Why.Over) : tokens
    }
    const now = Date.now()
    const life = tokens.answer.expires_in * 1000
    const left = tokens.at + life - now
    // A clock that was put back says nothing about the age.
    if (left <= 0 || left > life + AHEAD) return renew(tokens, Why.Expired)
    if (!flight && left < Math.min(AHEAD, life / 10) && now > nextAhead) {
      // Still good: this call does not wait. Whatever goes wrong shows when it has run out.
      nextAhead = now + PATIENCE * 1000
      ahead = true
      renew(tokens, Why.Expired).catch(() => {})
    }
    return tokens
  }

  /** Ends the session here; and there, if told how and if the gateway can be reached. */
  const end = async (how?: { all?: boolean }) => {
    while (flight) await flight.catch(() => {})
    load()
    const tokens = current()
    save({ out: true })
    if (!tokens) return
    changed()
    if (!how) return
    const { refresh_token } = tokens.answer
    // Who waits for this flight waits for its end, not for its outcome.
    const error = await alone(() => post('/logout', () => ({ refresh_token, all: how.all })).then(() => 0, e => e))
    if (error) throw error
  }

  load()
  return {
    get,
    renew,
    end,
    current,
    session,
    /** A token was accepted. */
    proven() {
      unproven = 0
    },
  }
}
