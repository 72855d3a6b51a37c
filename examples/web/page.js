// A page that talks only to the gateway.
import { createGateway } from '/wxgate.js'

const appid = 'wx0123456789abcdef'
const gateway = createGateway({ baseURL: location.origin, appid, onAuthChange: show })
const $ = id => document.getElementById(id)

/** What the user reads. Codes: docs/guide/problems.md. */
const words = {
  network_error: 'No connection. Try again.',
  access_denied: 'You have refused. Without a login there are no orders.',
  logged_out: '',
  login_required: '',
}

async function attempt(work) {
  $('error').textContent = ''
  try {
    await work()
  } catch (error) {
    $('error').textContent = words[error.code] ?? `Something went wrong (${error.instance ?? error.code}).`
  }
}

async function list() {
  const { data } = await gateway.request({ url: '/api/orders' })
  $('orders').replaceChildren(...data.orders.map(order => Object.assign(document.createElement('li'), { textContent: order.item })))
}

function show() {
  const { session } = gateway
  $('who').textContent = session ? `Hello, ${session.member.nickname || 'stranger'}` : 'Nobody is logged in.'
  $('login').hidden = !!session
  $('logout').hidden = $('order').hidden = !session
  if (!session) $('orders').replaceChildren()
}

$('login').onclick = () => attempt(() => gateway.login())
$('logout').onclick = () => attempt(() => gateway.logout())
$('order').onsubmit = event => {
  event.preventDefault()
  attempt(async () => {
    await gateway.request({ url: '/api/orders', method: 'POST', data: { item: event.target.item.value } })
    event.target.reset()
    await list()
  })
}

await gateway.ready
show()
await attempt(list)
