const app = getApp()

Page({
  data: { orders: [], item: '' },

  onShow() {
    return app.attempt(() => this.load())
  },

  async onPullDownRefresh() {
    await app.attempt(() => this.load())
    wx.stopPullDownRefresh()
  },

  async load() {
    const { data } = await app.gateway.request({ url: '/api/orders' })
    this.setData({ orders: data.orders })
  },

  type({ detail }) {
    this.setData({ item: detail.value })
  },

  place() {
    return app.attempt(async () => {
      const { statusCode } = await app.gateway.request({ url: '/api/orders', method: 'POST', data: { item: this.data.item } })
      if (statusCode !== 201) return wx.showToast({ title: 'What would you like?', icon: 'none' })
      this.setData({ item: '' })
      await this.load()
    })
  },
})
