const app = getApp()

Page({
  data: { session: null },

  onShow() {
    this.setData({ session: app.gateway.session })
  },

  login() {
    return app.attempt(async () => this.setData({ session: await app.gateway.login() }))
  },

  logout() {
    return app.attempt(async () => {
      await app.gateway.logout()
      this.setData({ session: null })
    })
  },

  /** The law gives everybody the right to be forgotten. */
  erase() {
    return app.attempt(async () => {
      await app.gateway.erase()
      this.setData({ session: null })
    })
  },
})
