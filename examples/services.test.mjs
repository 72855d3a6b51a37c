// The example services, each started as a whole: the same orders in three languages.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { start } from './start.mjs'

const names = process.env.EXAMPLES?.split(',') ?? ['service-node', 'service-python', 'service-rust']

for (const name of names) {
  describe(name, () => {
    let all
    before(async () => (all = await start(name, { free: true })))
    after(() => all?.stop())

    /** A person with a token; the code is the simulator's. */
    async function visitor(user) {
      const { code } = await (await fetch(`${all.simulator}/_sim/code?user=${user}`)).json()
      const login = await (await fetch(`${all.gateway}/auth/login`, { method: 'POST', body: JSON.stringify({ code }) })).json()
      const headers = { authorization: `Bearer ${login.access_token}`, 'content-type': 'application/json' }
      return (path, options) => fetch(all.gateway + path, { ...options, headers: { ...headers, ...options?.headers } })
    }
    const items = async answer => (await answer.json()).orders.map(order => order.item)

    test('each caller sees his own orders', async () => {
      const [alice, bob] = [await visitor('alice'), await visitor('bob')]
      const placed = await alice('/api/orders', { method: 'POST', body: '{"item":"tea"}' })
      assert.equal(placed.status, 201)
      assert.equal((await placed.json()).item, 'tea')
      assert.deepEqual(await items(await alice('/api/orders')), ['tea'])
      assert.deepEqual(await items(await bob('/api/orders')), [])
    })

    test('nobody is somebody else by saying so', async () => {
      const [carol, dave] = [await visitor('carol'), await visitor('dave')]
      await carol('/api/orders', { method: 'POST', body: '{"item":"cake"}' })
      const { openid } = (await (await carol('/auth/me')).json()).member
      for (const header of ['X-WX-OPENID', 'x_wx_openid', 'X-Wx-Openid']) {
        assert.deepEqual(await items(await dave('/api/orders', { headers: { [header]: openid } })), [])
      }
    })

    test('without a token the service is not asked', async () => {
      const answer = await fetch(`${all.gateway}/api/orders`)
      assert.equal(answer.status, 401)
      assert.equal((await answer.json()).code, 'token_missing')
    })

    test('a request that has not come through the gateway has no caller', async () => {
      assert.equal((await fetch(`${all.service}/orders`)).status, 401)
    })

    if (name === 'service-python') {
      test('who is on its network cannot say who calls: neither by a header nor by another token of the gateway', async () => {
        const { code } = await (await fetch(`${all.simulator}/_sim/code?user=mallory`)).json()
        const login = await fetch(`${all.gateway}/auth/login`, { method: 'POST', body: JSON.stringify({ code }) })
        const { access_token, openid } = await login.json()
        for (const assertion of [undefined, access_token, `${access_token.slice(0, -4)}AAAA`, 'x']) {
          const headers = { 'X-WX-OPENID': openid, ...(assertion && { 'X-Wxgate-Assertion': assertion }) }
          assert.equal((await fetch(`${all.service}/orders`, { headers })).status, 401, assertion)
        }
      })
    }

    test('an order without an item is refused', async () => {
      const erin = await visitor('erin')
      const answer = await erin('/api/orders', { method: 'POST', body: '{}' })
      assert.ok([400, 422].includes(answer.status), `${answer.status}`)
    })
  })
}
