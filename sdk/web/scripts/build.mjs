// One ES module without dependencies: dist/index.js. The declarations beside it are made by tsc.
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
rmSync(`${root}dist`, { recursive: true, force: true })
mkdirSync(`${root}dist`)
await build({
  absWorkingDir: root,
  entryPoints: ['src/index.ts'],
  outfile: 'dist/index.js',
  bundle: true,
  minify: true,
  format: 'esm',
  target: 'es2018',
  platform: 'browser',
  charset: 'utf8',
  legalComments: 'none',
})
writeFileSync(`${root}dist/index.d.ts`, "export * from './web/src/index'\n")
