/**
 * A real, headless Chromium with its own profile, driven by playwright-core. It is a child process, so that tests can
 * kill it and start it again on the same profile.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { type Browser, type BrowserContext, chromium } from 'playwright-core'
import { within } from '@latchkey/testing/within.ts'

/** The first start reads 300 MB from a possibly busy disk. */
const START_WITHIN_MS = 60_000

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const REMEDY = 'Install it (Debian: apt-get install chromium), or set CHROMIUM_PATH.'

export type RunningChromium = {
  /** Pages of the context share storage, like tabs of one profile. */
  readonly context: BrowserContext
  /** Kills all its processes with SIGKILL; the profile remains. */
  kill(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Value for a suite's `skip`: the reason, or false. Browser tests are never skipped in CI. */
export function skipWithoutChromium(): string | false {
  return chromiumPath() === undefined && process.env['CI'] !== 'true' && `Chromium not found. ${REMEDY}`
}

/** Starts Chromium on the given profile, or on a new one. */
export async function startChromium(profile?: string): Promise<RunningChromium> {
  const path = chromiumPath()
  if (path === undefined) throw new Error(`Chromium not found. ${REMEDY}`)
  const directory = profile ?? newProfile()
  const flags = ['--headless', '--remote-debugging-port=0', `--user-data-dir=${directory}`]
  const silence = [
    '--no-first-run',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
  ]
  // The sandbox does not run as root.
  const root = process.getuid?.() === 0 ? ['--no-sandbox'] : []
  const child = spawn(path, [...flags, ...silence, ...root, 'about:blank'], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = once(child, 'exit')
  const endpoint = await within('Chromium to start', endpointOf(child), START_WITHIN_MS)
  const browser = await chromium.connectOverCDP(endpoint)
  const kill = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
      process.kill(-child.pid, 'SIGKILL')
    }
    await exited
    await browser.close()
  }
  return {
    context: contextOf(browser),
    kill,
    async [Symbol.asyncDispose]() {
      await kill()
      if (profile === undefined) rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
    },
  }
}

/** Directory for a profile that is used by several browsers in turn. */
export function newProfile(): string {
  return mkdtempSync(join(tmpdir(), 'latchkey-chromium-'))
}

/** Copies the profile of a closed browser without its process locks. */
export function copyProfile(from: string, to: string): void {
  cpSync(from, to, { recursive: true, filter: (path) => !basename(path).startsWith('Singleton') })
}

function chromiumPath(): string | undefined {
  return process.env['CHROMIUM_PATH'] ?? PLACES.find((path) => existsSync(path))
}

async function endpointOf(child: ChildProcess): Promise<string> {
  if (child.stderr === null) throw new Error('Chromium has no stderr')
  const output: string[] = []
  const lines = createInterface(child.stderr)
  for await (const line of lines) {
    const [, endpoint] = /DevTools listening on (ws:\S+)/.exec(line) ?? []
    if (endpoint !== undefined) {
      // Keeps reading, because a full pipe would block the browser.
      child.stderr.resume()
      return endpoint
    }
    output.push(line)
  }
  throw new Error(`Chromium did not start:\n${output.join('\n')}`)
}

function contextOf(browser: Browser): BrowserContext {
  const [context] = browser.contexts()
  if (context === undefined) throw new Error('Chromium has no default context')
  return context
}
