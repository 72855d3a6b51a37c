const app = getApp()

Page({
  data: { lines: [], text: '', online: false },

  onShow() {
    // Comes back by itself, with a fresh token, until it is closed.
    const socket = app.gateway.connectSocket({ url: '/api/chat' })
    socket.onOpen(() => this.setData({ online: true }))
    socket.onMessage(({ data }) => this.setData({ lines: [...this.data.lines, JSON.parse(data)].slice(-50) }))
    socket.onClose(() => this.setData({ online: false }))
    this.socket = socket
  },

  onHide() {
    this.socket.close()
  },

  onUnload() {
    this.socket.close()
  },

  type({ detail }) {
    this.setData({ text: detail.value })
  },

  send() {
    this.socket.send({
      data: this.data.text,
      success: () => this.setData({ text: '' }),
      fail: () => wx.showToast({ title: 'Not connected yet.', icon: 'none' }),
    })
  },
})
