// The entry of the built file, in the module form of mini programs.
import { createGateway } from './index'

declare const module: { exports: unknown }
module.exports = { createGateway }
