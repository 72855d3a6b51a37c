// What users of every package see.

/** A member as the gateway shows it. Times are RFC 3339; `phone` is masked. */
export interface Member {
  member_id: string
  appid: string
  openid: string
  unionid?: string
  nickname: string
  avatar_url: string
  phone: string
  roles: string[]
  created_at: string
  last_login_at: string
}

/** Who is logged in. */
export interface Session {
  appid: string
  openid: string
  unionid?: string
  member_id: string
  /** Whether the latest login was this member's first. */
  is_new: boolean
  member: Member
}

/** The answer of `me()`. */
export interface Me {
  member: Member
  session: { id: string; created_at: string; expires_at: string }
  subscribed?: boolean
}

/**
 * Why a call failed: what every promise rejects with and every `fail` callback gets.
 *
 * `code` is the problem's code when the gateway refused, else one of the SDK's own: `network_error`, `timeout`,
 * `interrupted`, `aborted`, `login_failed` (wx.login), `logged_out`, `foreign_url`, `bad_answer`; of web pages also
 * `login_required`, `access_denied`, `cookie_needed`.
 */
export interface GatewayError extends Error {
  name: 'GatewayError'
  code: string
  /** As WeChat's own errors have it: `request:fail …`. */
  errMsg: string
  /** HTTP status; absent when no answer came. */
  status?: number
  /** What to do, in words, for the developer. */
  detail?: string
  /** The gateway's request id: what its operator finds in the log. */
  instance?: string
  /** Seconds to wait. */
  retryAfter?: number
  /** WeChat's number of a failed call, where it gave one. */
  errno?: number
  /** Of `callContainer` only: 102002 for a time-out, as there; -1 for everything else. */
  errCode?: number
}

/** The callback style. The promise is returned as well, and need not be looked at. */
export interface Callbacks<T> {
  success?: (result: T) => void
  fail?: (error: GatewayError) => void
  complete?: (outcome: T | GatewayError) => void
}

type Listener = (event: any) => void

/** A call under way: a promise, and what WeChat's task objects can do. */
export interface GatewayTask<T> extends Promise<T> {
  /** Ends it; the promise rejects with the code `aborted`. */
  abort(): void
  onHeadersReceived(listener: Listener): void
  offHeadersReceived(listener?: Listener): void
  /** With `enableChunked`. */
  onChunkReceived(listener: Listener): void
  offChunkReceived(listener?: Listener): void
  /** Of uploads and downloads. */
  onProgressUpdate(listener: Listener): void
  offProgressUpdate(listener?: Listener): void
}

export type Method = 'OPTIONS' | 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE' | 'TRACE' | 'CONNECT'

export interface CallOptions {
  /** A path under `baseURL`, or an address that begins with it. */
  url: string
  header?: Record<string, any>
  /** Milliseconds. */
  timeout?: number
  /**
   * `true` (default): with a token, logging in first when there is none. `'optional'`: with a token when somebody is
   * logged in. `false`: without.
   */
  auth?: boolean | 'optional'
  /**
   * Whether the call may be made a second time when the first was cut off without an answer, because the app went to the
   * background. Default: GET, HEAD and downloads.
   */
  idempotent?: boolean
}

/** As `wx.request`, whose further options (`enableChunked`, `enableHttp2`, …) pass through. */
export interface RequestOptions<T = any> extends CallOptions, Callbacks<RequestResult<T>> {
  method?: Method
  data?: string | object | ArrayBuffer
  dataType?: string
  responseType?: 'text' | 'arraybuffer'
  [further: string]: any
}

export interface RequestResult<T = any> {
  data: T
  statusCode: number
  header: Record<string, any>
  cookies: string[]
  errMsg: string
}

/** As `wx.connectSocket`. */
export interface SocketOptions extends Callbacks<{ errMsg: string }> {
  url: string
  header?: Record<string, any>
  protocols?: string[]
  timeout?: number
  auth?: boolean | 'optional'
  /**
   * Default true: a lost connection is made again, until `close()`, a close with code 1000, or one by which the gateway says
   * that another attempt is useless (4001 `forbidden`, 1001 `route_removed`).
   */
  reconnect?: boolean
  [further: string]: any
}

export interface SocketClose {
  code: number
  reason: string
  /** Whether another attempt follows by itself. */
  reconnecting: boolean
}

/** As WeChat's SocketTask, over all connections that follow each other. */
export interface GatewaySocket {
  send(options: { data: string | ArrayBuffer } & Callbacks<{ errMsg: string }>): void
  close(options?: { code?: number; reason?: string } & Callbacks<{ errMsg: string }>): void
  /** At each connection. */
  onOpen(listener: (event: { header: Record<string, any> }) => void): void
  onMessage(listener: (event: { data: string | ArrayBuffer }) => void): void
  onError(listener: (error: { errMsg: string; code?: string }) => void): void
  /** At each lost connection and each attempt that failed. */
  onClose(listener: (event: SocketClose) => void): void
}

/** Where tokens are kept: what has these two functions of `wx`. Default `wx` itself, on web pages `localStorage`. */
export interface TokenStorage {
  getStorageSync(key: string): any
  setStorageSync(key: string, value: any): void
}

export interface GatewayOptions {
  /** `https://api.example.com`, without a trailing slash or with. */
  baseURL: string
  /** Needed when the gateway serves several apps. */
  appid?: string
  storage?: TokenStorage
  /** Told of each login (who) and of the end of a session (`null`). */
  onAuthChange?: (session: Session | null) => void
  /** The gateway's `[server] base`; default `/auth`. */
  authBase?: string
}

export interface LoginOptions extends Callbacks<Session> {
  /** Logs in also when there is a session. */
  force?: boolean
}

export interface LogoutOptions extends Callbacks<void> {
  /** Every session of the member in this app, on all devices. */
  all?: boolean
}


/** What every package has. */
export interface GatewayBase {
  /** Who is logged in, or `null`; asks nobody. */
  readonly session: Session | null
  /** Logs in if nobody is. */
  login(options?: LoginOptions): Promise<Session>
  /** Ends the session here and there. Nothing logs in again until `login()`. */
  logout(options?: LogoutOptions): Promise<void>
  request<T = any>(options: RequestOptions<T>): GatewayTask<RequestResult<T>>
  upload(options: any): GatewayTask<any>
  download(options: any): GatewayTask<any>
  me(callbacks?: Callbacks<Me>): Promise<Me>
  /** Deletes the member: sessions, keys, profile, phone. As `logout()` for this device. */
  erase(callbacks?: Callbacks<void>): Promise<void>
}
