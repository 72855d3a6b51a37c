// What the core needs of the place that it runs in. In a mini program that is `wx`; web pages have something made like it.

/** A request, upload or download under way. Listeners are added where the platform has them. */
export interface TransferTask {
  abort(): void
  [listener: string]: any
}

export interface SocketTask {
  send(message: any): void
  close(how: any): void
  onOpen(listener: (event: any) => void): void
  onMessage(listener: (event: any) => void): void
  onError(listener: (error: any) => void): void
  onClose(listener: (event: any) => void): void
}

/** The functions of `wx` that the core calls, with their parameters and results as WeChat documents them. */
export interface Platform {
  request(options: any): TransferTask
  uploadFile(options: any): TransferTask
  downloadFile(options: any): TransferTask
  /** With the headers that it is given; browsers cannot. */
  connectSocket?(options: any): SocketTask
  getStorageSync(key: string): any
  setStorageSync(key: string, value: any): void
  /** Of mini programs only: a refused download is a file. */
  getFileSystemManager?(): { readFileSync(path: string, encoding: any): any }
  /** Where apps are put to sleep: of mini programs only. */
  onAppShow?(listener: () => void): void
  onAppHide?(listener: () => void): void
}

/** Gets what `POST /auth/login` takes: `{ code }` or `{ ticket }`. `asked`: the page wants it. */
export type Credential = (how: { asked: boolean; success(found: any): void; fail(error: any): void }) => void

export let platform: Platform

/** Comes before everything else. */
export function install(one: Platform): void {
  platform = one
}
