// The way to WeChat and back. What comes back is taken only in the tab that has left for it.

import type { Credential } from '../../core/platform'
import type { GatewayError } from '../../core/types'

/** How long after a login no automatic one is made, milliseconds: one that does not help must not become a loop. */
const PAUSE = 60000

/** What a browser leaves in an address though no URL holds it unescaped: the gateway would refuse it. */
const UNSAFE = /[\\"<>^`{|}]/g

const problem = (code: string, status?: number) => ({ code, status, errMsg: `login:fail ${code}` }) as GatewayError

/** As if the gateway had said it with a 403: there is no session, and none will come by itself. */
const refusal = (code: string) => problem(code, 403)

/** `at` is the gateway's base for its own endpoints. */
export function webLogin(at: string, appid: string, automatic?: boolean, cookie?: boolean) {
  const key = `wxgate:left:${at}:${appid}`
  let returned: { ticket?: string | null; error?: string | null } = {}
  /** The ticket has been used, and nobody has said yet that it helped. */
  let spent = false
  let redirect: string | undefined
  let isBack = false

  /** When this tab left for WeChat; and when it was back last. */
  const left = (): { at?: number; last?: number } => {
    try {
      return JSON.parse(sessionStorage.getItem(key) || '{}')
    } catch (_) {
      return {}
    }
  }
  const remember = (value: object) => {
    try {
      sessionStorage.setItem(key, JSON.stringify(value))
    } catch (_) {
      // Then whatever comes back will not be believed.
    }
  }

  const arrive = () => {
    const url = new URL(location.href)
    const ticket = url.searchParams.get('ticket')
    const error = url.searchParams.get('error')
    const { at: since } = left()
    // A ticket that this tab has not asked for is somebody else's session.
    if (!since || !(ticket || error || cookie)) return
    remember({ last: since })
    if (ticket || error) {
      url.searchParams.delete('ticket')
      url.searchParams.delete('error')
    }
    // WeChat's own fragment outlives the redirects, where the page has none.
    if (url.hash === '#wechat_redirect') url.hash = ''
    history.replaceState(history.state, '', url.href)
    returned = { ticket: cookie ? null : ticket, error }
    isBack = !error
  }

  const leave = (fail: (error: GatewayError) => void) => {
    remember({ at: Date.now() })
    const url = new URL(redirect || location.href)
    url.searchParams.delete('ticket')
    url.searchParams.delete('error')
    const to = url.href.replace(UNSAFE, encodeURIComponent)
    // Who comes back by the back button finds a page that has been waiting all the time.
    addEventListener('pageshow', event => event.persisted && fail(problem('aborted')), { once: true })
    location.assign(`${at}/web/${appid}/start?redirect=${encodeURIComponent(to)}`)
  }

  arrive()
  return {
    /** Whether the browser has just come back, and nobody has refused. */
    isBack,
    /** Where the next login returns to. */
    returnTo(url: string | undefined) {
      redirect = url
    },
    settled() {
      spent = false
    },
    login({ asked, success, fail }: Parameters<Credential>[0]) {
      const { ticket, error } = returned
      if (ticket) {
        returned = {}
        spent = true
        return success({ ticket })
      }
      if (spent) return fail(refusal('login_required'))
      if (error && !asked) return fail(refusal(error))
      const isRecent = Date.now() < (left().last || 0) + PAUSE
      if (!asked && (!automatic || isRecent)) return fail(refusal('login_required'))
      leave(fail)
    },
  }
}
