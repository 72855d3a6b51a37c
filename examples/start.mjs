// Starts an example with everything around it: the simulator in WeChat's place, the gateway, the service.
//
//     node examples/start.mjs service-python
//
// Needs the gateway's binary: `cargo build`, or its path in WXGATE. What the gateway stores is gone when it ends.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'

const here = path => fileURLToPath(new URL(path, import.meta.url))
const target = process.env.CARGO_TARGET_DIR ?? here('../target')
const WXGATE = process.env.WXGATE ?? [join(target, 'release/wxgate'), join(target, 'debug/wxgate')].find(existsSync) ?? 'wxgate'
const NPM_CI = ['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']

/** A package of this repository, built when it is not. */
async function sdk(name) {
  const folder = here(`../sdk/${name}/`)
  if (existsSync(`${folder}dist/index.js`)) return `${folder}dist/index.js`
  await run(folder, ...NPM_CI)
  await run(folder, 'npm', 'run', '--silent', 'build')
  return `${folder}dist/index.js`
}

/** What each example needs before it can start, and its service. */
const examples = {
  'service-node': {
    prepare: folder => existsSync(`${folder}node_modules`) || run(folder, ...NPM_CI),
    service: folder => [process.execPath, `${folder}server.js`],
  },
  'service-python': {
    async prepare(folder) {
      if (existsSync(`${folder}.venv/bin/uvicorn`)) return
      await run(folder, 'python3', '-m', 'venv', '.venv')
      await run(folder, '.venv/bin/pip', 'install', '--quiet', '--requirement', 'requirements.txt')
    },
    service: folder => [`${folder}.venv/bin/python`, `${folder}server.py`],
  },
  'service-rust': {
    // With the whole workspace, so that both use the same builds of what they share.
    prepare: () => run(here('..'), 'cargo', 'build', '--locked', '--workspace'),
    service: () => [join(target, 'debug/wxgate-example-service')],
  },
  web: {
    prepare: () => sdk('web'),
    service: folder => [process.execPath, `${folder}server.mjs`],
  },
  miniprogram: {
    async prepare(folder) {
      await examples['service-node'].prepare(here('service-node/'))
      mkdirSync(`${folder}lib`, { recursive: true })
      copyFileSync(await sdk('miniprogram'), `${folder}lib/wxgate.js`)
    },
    service: () => [process.execPath, here('service-node/server.js')],
  },
}

async function run(cwd, command, ...args) {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`)
}

/** Starts a program and waits for what it prints: gives the first group. */
function launch([command, ...args], pattern, env = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  const waiting = []
  /** The first group of the pattern, in whatever is printed from the beginning on. */
  const hears = pattern => new Promise(resolve => waiting.push({ pattern, resolve }) && look())
  const look = () => {
    for (const one of waiting) {
      const found = one.pattern.exec(said)
      if (found) one.resolve(found[1])
    }
  }
  for (const input of [child.stdout, child.stderr]) {
    createInterface({ input }).on('line', line => {
      said += `${line}\n`
      look()
    })
  }
  const stop = async () => {
    child.removeAllListeners('exit')
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  const ready = new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', code => reject(new Error(`${command} ended with ${code}:\n${said}`)))
    hears(pattern).then(resolve)
  })
  return { child, ready, hears, stop }
}

/** Everything of one example. `free`: on free ports, for tests; else on those of its gateway.toml. */
export async function start(name, { free = false } = {}) {
  const example = examples[name]
  if (!example) throw new Error(`no such example: ${name}; there are ${Object.keys(examples).join(', ')}`)
  const folder = here(`${name}/`)
  await example.prepare(folder)
  const data = mkdtempSync(join(tmpdir(), 'wxgate-example-'))
  const running = []
  const begin = async (...given) => {
    const one = launch(...given)
    running.push(one)
    return [one, await one.ready]
  }
  const stop = async () => {
    await Promise.all(running.map(one => one.stop()))
    rmSync(data, { recursive: true, force: true })
  }
  try {
    const port = fixed => `127.0.0.1:${free ? 0 : fixed}`
    const [, simulator] = await begin([WXGATE, 'simulate', '--listen', port(9100)], /^WeChat simulator on (http:\S+)/m)
    const config = join(data, 'gateway.toml')
    const write = (address, service) =>
      writeFileSync(
        config,
        readFileSync(`${folder}gateway.toml`, 'utf8')
          .replace('listen = ["127.0.0.1:8080"]', `listen = ["${port(8080)}"]\n[admin]\nlisten = "${port(9090)}"`)
          .replaceAll('http://127.0.0.1:8080', address)
          .replaceAll('http://127.0.0.1:9100', simulator)
          .replace('http://127.0.0.1:3001', service),
      )
    write('http://127.0.0.1:8080', 'http://127.0.0.1:3001')
    const [gateway, listening] = await begin([WXGATE, 'serve', '--config', config], /"public":"\[([^\]]+)\]"/)
    const address = `http://${listening}`
    const env = { PORT: free ? '0' : '3001', WXGATE_ISSUER: address }
    const [, service] = await begin(example.service(folder), /(http:\/\/127\S+)/, env)
    if (free) {
      // Now the addresses are known, the gateway's own among them.
      write(address, service)
      gateway.child.kill('SIGHUP')
      await gateway.hears(/(configuration reloaded)/)
    }
    return { gateway: address, simulator, service, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const all = await start(process.argv[2])
  console.log(`gateway   ${all.gateway}\nsimulator ${all.simulator}\nservice   ${all.service}\nCtrl-C ends them all.`)
  process.once('SIGINT', () => all.stop())
  process.once('SIGTERM', () => all.stop())
}
