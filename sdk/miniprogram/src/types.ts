// What users of the package see. Nothing here refers to the official typings, so that the declarations also serve
// projects that do without them; test/types.ts proves that both fit together.

import type {
  CallOptions,
  Callbacks,
  GatewayBase,
  GatewayOptions,
  GatewaySocket,
  GatewayTask,
  Member,
  SocketOptions,
} from '../../core/types'
export type * from '../../core/types'

/** The answer of `phone()`. */
export interface PhoneNumber {
  phoneNumber: string
  purePhoneNumber: string
  countryCode: string
}

/** As `wx.cloud.callContainer`. */
export interface ContainerOptions<T = any> extends Callbacks<ContainerResult<T>> {
  path: string
  service?: string
  method?: string
  header?: Record<string, any>
  data?: any
  dataType?: string
  responseType?: string
  timeout?: number
  verbose?: boolean
  followRedirect?: boolean
  config?: object
}

export interface ContainerResult<T = any> {
  data: T
  statusCode: number
  header: Record<string, any>
  callID: string
  cookies: string[]
  errMsg: string
}

/** What WeChat's open-data calls give: `wx.getUserInfo`, `wx.getWeRunData`, a phone button of the older kind. */
export interface OpenData {
  encryptedData: string
  iv: string
  rawData?: string
  signature?: string
}

/**
 * Open data, or (better) the function that asks WeChat for it: then the SDK has `session_key` in order before it asks,
 * and may ask once more.
 */
export type OpenDataSource = OpenData | (() => OpenData | PromiseLike<OpenData>)

export interface MiniProgramOptions extends GatewayOptions {
  /** For `callContainer`: the path prefix of each CloudRun service, by name. A name that is missing has none. */
  services?: Record<string, string>
}

/** As `wx.uploadFile`. */
export interface UploadOptions extends CallOptions, Callbacks<UploadResult> {
  filePath: string
  name: string
  formData?: Record<string, any>
  [further: string]: any
}

export interface UploadResult {
  data: string
  statusCode: number
  errMsg: string
}

/** As `wx.downloadFile`. */
export interface DownloadOptions extends CallOptions, Callbacks<DownloadResult> {
  filePath?: string
  [further: string]: any
}

export interface DownloadResult {
  tempFilePath: string
  filePath: string
  statusCode: number
  errMsg: string
}

/** The gateway, for a mini program. Requests log in by themselves, silently. */
export interface Gateway extends GatewayBase {
  upload(options: UploadOptions): GatewayTask<UploadResult>
  download(options: DownloadOptions): GatewayTask<DownloadResult>
  connectSocket(options: SocketOptions): GatewaySocket
  callContainer<T = any>(options: ContainerOptions<T>): GatewayTask<ContainerResult<T>>
  /** The code of the phone button (`event.detail.code`), or the encrypted data of the older kind. */
  phone(code: string | OpenDataSource, callbacks?: Callbacks<PhoneNumber>): Promise<PhoneNumber>
  /** Sets nickname and avatar; or, given open data, has it verified and stored. */
  profile(
    info: { nickname?: string; avatar_url?: string } | OpenDataSource,
    callbacks?: Callbacks<Member>,
  ): Promise<Member>
  /** Decrypts open data. */
  openData<T = any>(source: OpenDataSource, callbacks?: Callbacks<T>): Promise<T>
  /** Asks WeChat (wx.checkSession) whether its key is still good, and logs in again if not. */
  checkSession(callbacks?: Callbacks<boolean>): Promise<boolean>
}
