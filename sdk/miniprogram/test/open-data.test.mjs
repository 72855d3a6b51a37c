// WeChat's encrypted data, the phone number, and the key they need, with the real gateway and simulator.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { demo } from './shim/world.mjs'
import { Phone } from './shim/wx.mjs'

let world
before(async () => (world = await demo()))
after(() => world.stop())

function visitor(t, options = {}) {
  const phone = new Phone({ ...world, ...options })
  t.after(() => phone.close())
  const app = phone.launch()
  const wx = app.createGateway({ baseURL: world.gateway })
  /** What was sent to a path, in order. */
  const sent = path => phone.requests.filter(r => r.path === path).map(r => JSON.parse(r.body))
  return { phone, app, wx, sent }
}

const fails = (promise, code) =>
  promise.then(
    () => assert.fail(`succeeded instead of ${code}`),
    error => (assert.equal(error.code, code), error),
  )

/** Encrypted with a key that nobody keeps any more: two logins ago. */
async function outdated(phone, wx) {
  await wx.login()
  const blob = await phone.steps(1)
  await wx.login({ force: true })
  await wx.login({ force: true })
  return blob
}

test('phone: the code of the button gives the number, which is stored on the member', async t => {
  const { phone, wx, sent } = visitor(t)
  const { code } = await phone.phoneButton().catch(() => wx.login().then(() => phone.phoneButton()))
  const number = await wx.phone(code)
  assert.match(number.purePhoneNumber, /^1\d{10}$/)
  assert.equal(number.countryCode, '86')
  assert.deepEqual(sent('/auth/phone'), [{ code }])
  const { phone: masked } = (await wx.me()).member
  assert.ok(masked.endsWith(number.purePhoneNumber.slice(-4)) && masked !== number.purePhoneNumber, masked)
  await fails(wx.phone(code), 'code_invalid')
})

test('phone: the encrypted form of older buttons gives the same number', async t => {
  const { phone, wx } = visitor(t)
  await wx.login()
  const { encryptedData, iv } = await phone.phoneButton()
  const byBlob = await wx.phone({ encryptedData, iv })
  assert.deepEqual(byBlob, await wx.phone((await phone.phoneButton()).code))
})

test('profile: verified, decrypted, stored; and nothing else of what WeChat returned is sent', async t => {
  const { phone, wx, sent } = visitor(t, { user: 'Zoë' })
  await wx.login()
  const member = await wx.profile({ ...(await phone.userProfile()), userInfo: { nickName: 'x' }, errMsg: 'getUserProfile:ok' })
  assert.equal(member.nickname, 'Zoë')
  assert.equal((await wx.me()).member.nickname, 'Zoë')
  assert.deepEqual(Object.keys(sent('/auth/profile')[0]).sort(), ['encryptedData', 'iv', 'rawData', 'signature'])
})

test('profile: a signature that does not fit is refused, and not tried again', async t => {
  const { phone, wx, sent } = visitor(t)
  await wx.login()
  const info = await phone.userProfile()
  await fails(wx.profile({ ...info, rawData: info.rawData.replace('zh_CN', 'en_US') }), 'signature_mismatch')
  assert.equal(sent('/auth/profile').length, 1)
})

test('open data by WeChat\'s own function: logged in and the key looked at before it is asked', async t => {
  const { phone, app, wx } = visitor(t)
  const { stepInfoList } = await wx.openData(() => app.wx.getWeRunData())
  assert.deepEqual(stepInfoList, [{ timestamp: 1, step: 4321 }])
  assert.deepEqual(phone.calls, { login: 1, checkSession: 1 })
})

test('decrypt_failed: the function is asked for other data; no data go out twice', async t => {
  const { phone, wx, sent } = visitor(t)
  const old = await outdated(phone, wx)
  const given = []
  const data = await wx.openData(async () => (given.push(given.length ? await phone.steps(5) : old), given.at(-1)))
  assert.equal(data.stepInfoList[0].step, 5)
  assert.deepEqual(sent('/auth/open-data').map(body => body.encryptedData), given.map(blob => blob.encryptedData))
  assert.equal(new Set(given.map(blob => blob.encryptedData)).size, 2)
  assert.equal(phone.calls.login, 4)
})

test('decrypt_failed twice is the end, and data that come a second time are not sent again', async t => {
  const { phone, wx, sent } = visitor(t)
  const old = await outdated(phone, wx)
  await fails(wx.openData(() => old), 'decrypt_failed')
  assert.equal(sent('/auth/open-data').length, 1)
  const other = visitor(t)
  await other.wx.login()
  let asked = 0
  await fails(wx.openData(() => (asked++, other.phone.steps(asked))), 'decrypt_failed')
  assert.equal(asked, 2)
})

test('decrypt_failed of data as they are: never sent again, but the next will open', async t => {
  const { phone, wx, sent } = visitor(t)
  const old = await outdated(phone, wx)
  await fails(wx.openData(old), 'decrypt_failed')
  assert.equal(sent('/auth/open-data').length, 1)
  assert.equal((await wx.openData(await phone.steps(8))).stepInfoList[0].step, 8)
  assert.equal(phone.calls.login, 4)
})

test('data of somebody else do not open', async t => {
  const { wx } = visitor(t)
  const other = visitor(t)
  await Promise.all([wx.login(), other.wx.login()])
  await fails(wx.openData(await other.phone.steps(3)), 'decrypt_failed')
})

test('what is no open data at all is a fault in the program: no login, no repeat', async t => {
  const { phone, wx, sent } = visitor(t)
  await fails(wx.openData({ encryptedData: 'no base64!', iv: 'x' }), 'invalid_request')
  assert.equal(sent('/auth/open-data').length, 1)
  assert.equal(phone.calls.login, 1)
})

test('session_key_stale: a login, and the call once more, never a third time', async t => {
  const { phone, wx, sent } = visitor(t)
  const body = { type: 'urn:wxgate:problem:session_key_stale', code: 'session_key_stale', status: 401 }
  const stale = { answer: { statusCode: 401, data: body } }
  await wx.login()
  phone.spoil('/auth/phone', stale)
  await wx.phone((await phone.phoneButton()).code)
  assert.equal(phone.calls.login, 2)
  phone.spoil('/auth/phone', stale)
  phone.spoil('/auth/phone', stale)
  await fails(wx.phone('c'), 'session_key_stale')
  assert.equal(sent('/auth/phone').length, 4)
})

test('checkSession: a key that WeChat has dropped is followed by a login', async t => {
  const { phone, wx } = visitor(t)
  assert.equal(await wx.checkSession(), true)
  phone.sessionKeyGood = false
  assert.equal(await wx.checkSession(), false)
  assert.equal(phone.calls.login, 2)
})
