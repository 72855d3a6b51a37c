const app = getApp()
const { simulator } = require('../../config')

Page({
  data: { phone: '' },

  onShow() {
    return app.attempt(async () => this.setData({ phone: (await app.gateway.me()).member.phone }))
  },

  /** Without a code the user has refused, which is nobody's fault. */
  getPhoneNumber({ detail }) {
    return app.attempt(async () => {
      const { code } = simulator ? await require('../../simulated').phone(simulator) : detail
      if (!code) return
      const { phoneNumber } = await app.gateway.phone(code)
      this.setData({ phone: phoneNumber })
    })
  },
})
