// The entry of the built file, in the module form of mini programs.
import { install } from '../../core/platform'
import { createGateway } from './index'
import type { Platform } from '../../core/platform'

declare const module: { exports: unknown }
install(wx as unknown as Platform)
module.exports = { createGateway }
