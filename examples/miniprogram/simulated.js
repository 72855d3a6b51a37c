// Only while a simulator stands in WeChat's place: the developer tools' wx.login gives codes that it does not know.

const ask = (options, success, fail) =>
  wx.request({
    ...options,
    success: ({ data, statusCode }) => (statusCode === 200 ? success(data) : fail({ errMsg: JSON.stringify(data) })),
    fail,
  })

module.exports = {
  /** From now on wx.login gives the simulator's codes, for one and the same person. */
  install(simulator, user = 'alice') {
    const login = ({ success, fail }) => ask({ url: `${simulator}/_sim/code`, data: { user } }, success, fail)
    Object.defineProperty(wx, 'login', { configurable: true, value: login })
  },

  /** What the phone button would hand to the page. */
  phone: (simulator, user = 'alice') =>
    new Promise((resolve, reject) => {
      ask({ url: `${simulator}/_sim/phone`, method: 'POST', data: { user } }, resolve, reject)
    }),
}
