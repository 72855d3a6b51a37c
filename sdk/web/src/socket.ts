// wx.connectSocket, made of WebSocket. A browser sends no header of ours with the handshake; a cookie it does send.

import type { SocketTask } from '../../core/platform'

export function connectSocket(options: any): SocketTask {
  const socket = new WebSocket(options.url, options.protocols || [])
  socket.binaryType = 'arraybuffer'
  const listen = (name: string, shape: (event: any) => any) => (listener: any) =>
    socket.addEventListener(name, event => listener(shape(event)))
  return {
    send({ data, success, fail }: any) {
      try {
        socket.send(data)
      } catch (error) {
        if (fail) fail({ errMsg: `sendSocketMessage:fail ${error}` })
        return
      }
      if (success) success({ errMsg: 'sendSocketMessage:ok' })
    },
    close: ({ code = 1000, reason = '' }: any = {}) => socket.close(code, reason),
    onOpen: listen('open', () => ({ header: {} })),
    onMessage: listen('message', ({ data }) => ({ data })),
    onError: listen('error', () => ({ errMsg: 'connectSocket:fail' })),
    onClose: listen('close', ({ code, reason }) => ({ code, reason })),
  }
}
