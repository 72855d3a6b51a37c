// The parameters and the result of wx.cloud.callContainer, for mini programs that come from CloudRun.

import { assign, headerOf } from '../../core/wire'
import type { ContainerOptions, Gateway, MiniProgramOptions } from './types'

export function container(
  calling: (kind: 'request', given: any, shape: any, blame: any) => any,
  { services = {} }: MiniProgramOptions,
): Gateway['callContainer'] {
  return (given: ContainerOptions) => {
    const { path, service, method = 'GET', header, followRedirect } = given
    return calling(
      'request',
      assign({}, given, {
        url: (services[service || headerOf(header, 'x-wx-service')] || '') + path,
        method: method.toUpperCase(),
        redirect: followRedirect === false ? 'manual' : undefined,
      }),
      (result: any) =>
        assign(result, { callID: headerOf(result.header, 'x-request-id'), errMsg: 'cloud.callContainer:ok' }),
      (error: any) =>
        assign(error, {
          errMsg: error.errMsg.replace(/^\w+/, 'cloud.callContainer'),
          errCode: error.code === 'timeout' ? 102002 : -1,
        }),
    )
  }
}
