// What users of the package see beside what every package has.

import type {
  CallOptions,
  Callbacks,
  GatewayBase,
  GatewayOptions,
  GatewaySocket,
  GatewayTask,
  LoginOptions,
  Member,
  Session,
  SocketOptions,
} from '../../core/types'
export type * from '../../core/types'

export interface WebOptions extends GatewayOptions {
  /** The official account or website whose web login is used. */
  appid: string
  /**
   * Whether a request that needs a login sends the browser to WeChat by itself. Default false: it fails with the code
   * `login_required`, so that nobody loses what he was typing. Good for official accounts with `scope = "snsapi_base"`, where
   * nobody is asked and the page is back at once.
   */
  autoLogin?: boolean
  /** Whether the app has `web_result = "cookie"`: then no script of the page ever holds a token. Default false. */
  cookie?: boolean
}

export interface WebLoginOptions extends LoginOptions {
  /** Where to come back to: a URL of one of the app's `origins`. Default: where the page is. */
  redirect?: string
}

export interface UploadOptions extends CallOptions, Callbacks<UploadResult> {
  file: Blob
  /** Of the form field. */
  name: string
  /** Default: the file's own. */
  fileName?: string
  formData?: Record<string, any>
}

export interface UploadResult {
  data: string
  statusCode: number
  header: Record<string, string>
  errMsg: string
}

export interface DownloadOptions extends CallOptions, Callbacks<DownloadResult> {}

export interface DownloadResult {
  blob: Blob
  statusCode: number
  header: Record<string, string>
  errMsg: string
}

/** As the platform's own; a body is sent as often as the call needs, so it cannot be a stream. */
export interface FetchOptions extends Omit<RequestInit, 'body'> {
  body?: Exclude<BodyInit, ReadableStream> | null
  auth?: boolean | 'optional'
}

/** The gateway, for a web page. */
export interface Gateway extends GatewayBase {
  /** Who is logged in, once a login from which the browser has just come back is complete. Never rejects. */
  readonly ready: Promise<Session | null>
  /** Sends the browser to WeChat, unless somebody is logged in; then the page is left, and the promise stays open. */
  login(options?: WebLoginOptions): Promise<Session>
  /** As `fetch`, with a token; what the gateway refuses is an error, what the service answers a `Response`. */
  fetch(url: string, options?: FetchOptions): Promise<Response>
  /**
   * With `cookie` only, on routes that take it: a browser sends no token of ours with a handshake. As in mini programs it
   * comes back after a lost connection, without `header` and `onOpen`'s headers.
   */
  connectSocket(options: Omit<SocketOptions, 'header' | 'timeout'>): GatewaySocket
  upload(options: UploadOptions): GatewayTask<UploadResult>
  download(options: DownloadOptions): GatewayTask<DownloadResult>
  /** Sets nickname and avatar. */
  profile(info: { nickname?: string; avatar_url?: string }, callbacks?: Callbacks<Member>): Promise<Member>
}
