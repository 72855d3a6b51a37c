module.exports = {
  // Where the gateway is. On a phone: https, and on the list of request domains.
  baseURL: 'http://127.0.0.1:8080',
  // The simulator in WeChat's place; '' with WeChat itself.
  simulator: 'http://127.0.0.1:9100',
}
