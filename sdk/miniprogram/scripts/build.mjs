// One CommonJS file without dependencies: dist/index.js. The declarations beside it are made by tsc.
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
rmSync(`${root}dist`, { recursive: true, force: true })
await build({
  absWorkingDir: root,
  entryPoints: ['src/main.ts'],
  outfile: 'dist/index.js',
  bundle: true,
  minify: true,
  format: 'cjs',
  target: 'es2017',
  platform: 'neutral',
  charset: 'utf8',
  logOverride: { 'commonjs-variable-in-esm': 'silent' },
  // Names that only the SDK's own objects have: not stored, not seen from outside.
  mangleProps: /^(aborted|cancel|current|listeners|proven|renew)$/,
  legalComments: 'none',
})
