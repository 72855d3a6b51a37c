const { createGateway } = require('./lib/wxgate')
const { baseURL, simulator } = require('./config')
const words = require('./words')

if (simulator) require('./simulated').install(simulator)

App({
  // The one thing that talks to the outside. Requests log in by themselves.
  gateway: createGateway({ baseURL }),

  /** Runs what a tap began; whoever tapped hears how it failed. */
  async attempt(work) {
    try {
      return await work()
    } catch (error) {
      if (error.code !== 'aborted') wx.showToast({ title: words(error), icon: 'none' })
    }
  },
})
