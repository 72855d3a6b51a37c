const app = getApp()

Page({
  data: { nickname: '', avatar_url: '' },

  onShow() {
    return app.attempt(async () => {
      const { member } = await app.gateway.me()
      this.setData({ nickname: member.nickname, avatar_url: member.avatar_url })
    })
  },

  /** WeChat gives a file of the phone: it has to be put where others can see it. */
  chooseAvatar({ detail }) {
    return app.attempt(async () => {
      const { data, statusCode } = await app.gateway.upload({ url: '/api/avatars', filePath: detail.avatarUrl, name: 'file' })
      if (statusCode !== 201) return wx.showToast({ title: 'Choose another picture.', icon: 'none' })
      const { avatar_url } = await app.gateway.profile({ avatar_url: JSON.parse(data).url })
      this.setData({ avatar_url })
    })
  },

  /** The form's submit: WeChat's check of the nickname is over by then. */
  save({ detail }) {
    return app.attempt(async () => {
      const { nickname } = await app.gateway.profile({ nickname: detail.value.nickname })
      this.setData({ nickname })
      wx.showToast({ title: 'Saved' })
    })
  },
})
