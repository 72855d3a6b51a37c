// Never run: that it compiles is the test. What is declared without the official typings fits them.
import { createGateway } from '../src/index'
import type * as Sdk from '../src/index'

const gateway = createGateway({ baseURL: 'https://api.example.com', storage: wx, onAuthChange: session => session?.openid })

// An option object for WeChat's function is one for the gateway's.
declare const request: WechatMiniprogram.RequestOption
declare const upload: WechatMiniprogram.UploadFileOption
declare const download: WechatMiniprogram.DownloadFileOption
declare const socket: WechatMiniprogram.ConnectSocketOption
gateway.request({ ...request, success: undefined, fail: undefined, complete: undefined })
gateway.upload({ ...upload, success: undefined, fail: undefined, complete: undefined })
gateway.download({ ...download, success: undefined, fail: undefined, complete: undefined })
gateway.connectSocket({ ...socket, success: undefined, fail: undefined, complete: undefined })

// callContainer takes and gives what wx.cloud.callContainer does.
declare const container: Omit<ICloud.CallContainerParam, 'success' | 'fail' | 'complete'>
gateway.callContainer(container).then((result: ICloud.CallContainerResult) => result.callID)

// Results can stand where WeChat's own were.
type Without<T, K extends string> = Omit<T, K>
const fromRequest = (
  result: Sdk.RequestResult<WechatMiniprogram.IAnyObject>,
): Without<WechatMiniprogram.RequestSuccessCallbackResult, 'exception' | 'profile' | 'useHttpDNS'> => result
const fromUpload = (result: Sdk.UploadResult): Without<WechatMiniprogram.UploadFileSuccessCallbackResult, 'profile'> => result
const fromDownload = (
  result: Sdk.DownloadResult,
): Without<WechatMiniprogram.DownloadFileSuccessCallbackResult, 'profile'> => result

// Open data straight from WeChat.
gateway.openData<{ stepInfoList: { step: number }[] }>(() => wx.getWeRunData()).then(data => data.stepInfoList[0].step)
gateway.profile({ nickname: 'a', avatar_url: 'https://example.com/a.png' }).then(member => member.nickname)
gateway.request<{ id: number }>({ url: '/x', success: ({ data }) => data.id, fail: error => error.code }).abort()

// @ts-expect-error WeChat cannot send PATCH
gateway.request({ url: '/x', method: 'PATCH' })
// @ts-expect-error a base is needed
createGateway({})

export { fromDownload, fromRequest, fromUpload }
