// The way to WeChat and back. What comes back is taken only in the tab that has left for it.

import type { GatewayError } from '../../core/types'

/** How long after an automatic departure none is made again, milliseconds: a login that does not help must not become a loop. */
const PAUSE = 60000

/** What a browser leaves in an address though no URL holds it unescaped: the gateway would refuse it. */
const UNSAFE = /[\\"<>^`{|}]/g

export interface Returned {
  ticket?: string | null
  error?: string | null
}

/** As if the gateway had said it with a 403: there is no session, and none will come by itself. */
const problem = (code: string) => ({ code, status: 403, errMsg: `login:fail ${code}` }) as GatewayError

/** `at` is the gateway's base for its own endpoints. */
export function webLogin(at: string, appid: string, automatic: boolean | undefined) {
  const key = `wxgate:left:${at}:${appid}`
  let returned: Returned = {}
  /** The ticket has been used, and nobody has said yet that it helped. */
  let spent = false
  let redirect: string | undefined

  const left = (): { at: number; asked: boolean } | null => {
    try {
      return JSON.parse(sessionStorage.getItem(key)!)
    } catch (_) {
      return null
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
    const before = left()
    // A ticket that this tab has not asked for is somebody else's session.
    if (!before || !before.at || !(ticket || error)) return
    remember({ last: before.at })
    url.searchParams.delete('ticket')
    url.searchParams.delete('error')
    // WeChat's own fragment outlives the redirects, where the page has none.
    if (url.hash === '#wechat_redirect') url.hash = ''
    history.replaceState(history.state, '', url.href)
    returned = { ticket, error }
  }

  const leave = (asked: boolean, fail: (error: GatewayError) => void) => {
    remember({ at: Date.now(), asked })
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
    /** Whether the browser has just come back with a ticket. */
    get hasTicket() {
      return !!returned.ticket
    },
    /** Where the next login returns to. */
    returnTo(url: string | undefined) {
      redirect = url
    },
    settled() {
      spent = false
    },
    login({ asked, success, fail }: { asked: boolean; success(found: Returned): void; fail(error: GatewayError): void }) {
      const { ticket, error } = returned
      if (ticket) {
        returned = {}
        spent = true
        return success({ ticket })
      }
      if (spent) return fail(problem('login_required'))
      if (error && !asked) return fail(problem(error))
      const recent = JSON.parse(sessionStorage.getItem(key) || '{}').last > Date.now() - PAUSE
      if (!asked && (!automatic || recent)) return fail(problem('login_required'))
      leave(asked, fail)
    },
  }
}
