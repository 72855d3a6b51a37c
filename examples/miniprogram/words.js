// What the user reads when something failed. Codes: docs/guide/problems.md.
const words = {
  network_error: 'No connection. Try again.',
  timeout: 'No answer. Try again.',
  login_failed: 'WeChat did not answer. Try again.',
  logged_out: 'Log in first.',
  member_banned: 'This account may not be used.',
  login_refused: 'This account may not be used.',
  login_blocked: 'WeChat has blocked this account.',
  forbidden: 'You may not do this.',
  rate_limited: 'Too many at once. Wait a moment.',
  wechat_rate_limited: 'Too many at once. Wait a moment.',
  body_too_large: 'The picture is too large.',
}

module.exports = error => words[error.code] || `Something went wrong (${error.instance || error.code || error.errMsg}).`
