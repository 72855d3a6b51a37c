// Never run: that it compiles is the test.
import { createGateway } from '../src/index'

const gateway = createGateway({ baseURL: 'https://api.example.com', appid: 'wx1', onAuthChange: session => session?.openid })
gateway.ready.then(session => session?.member.nickname)
gateway.login({ redirect: 'https://m.example.com/shop' })
gateway.fetch('/x', { method: 'POST', body: new FormData() }).then(response => response.json())
gateway.upload({ url: '/x', file: new Blob(), name: 'file' }).onProgressUpdate(() => {})
gateway.download({ url: '/x' }).then(({ blob }) => URL.createObjectURL(blob))
gateway.request<{ id: number }>({ url: '/x', success: ({ data }) => data.id }).abort()

createGateway({ baseURL: 'https://api.example.com', appid: 'wx1', cookie: true }).connectSocket({ url: '/ws' }).onOpen(() => {})

// @ts-expect-error an app is needed: its web login is used
createGateway({ baseURL: 'https://api.example.com' })
// @ts-expect-error a stream can be sent only once
gateway.fetch('/x', { method: 'POST', body: new ReadableStream() })
// @ts-expect-error of mini programs only
gateway.phone('code')
