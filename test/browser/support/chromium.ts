/**
 * A real, headless Chromium with a profile of its own, driven by playwright-core. It is started as a process of ours, so
 * that it can be ended as a power cut would end it, and started again on the same profile.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { type Browser, type BrowserContext, chromium } from 'playwright-core'
import { within } from '@latchkey/testing/within.ts'

/** Its first start reads 300 MB from a disk that may have other things to do. */
const START_WITHIN_MS = 60_000

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
const REMEDY = 'Install it (Debian: apt-get install chromium), or set CHROMIUM_PATH.'

export type RunningChromium = {
  /** Its pages share storage, as tabs of one user do. */
  readonly context: BrowserContext
  /** kill -9 of all its processes. The profile stays. */
  kill(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** For `test`'s options: why browser tests are skipped, or false. In CI they never are. */
export function skipWithoutChromium(): string | false {
  return chromiumPath() === undefined && process.env['CI'] !== 'true' && `there is no Chromium. ${REMEDY}`
}

/** Starts Chromium on a new profile, or on one that is there. */
export async function startChromium(profile?: string): Promise<RunningChromium> {
  const path = chromiumPath()
  if (path === undefined) throw new Error(`There is no Chromium. ${REMEDY}`)
  const directory = profile ?? newProfile()
  const flags = ['--headless', '--remote-debugging-port=0', `--user-data-dir=${directory}`]
  const silence = [
    '--no-first-run',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
  ]
  // Its sandbox refuses to be used by root.
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

/** A directory for a profile that outlives a browser. */
export function newProfile(): string {
  return mkdtempSync(join(tmpdir(), 'latchkey-chromium-'))
}

/** Copies the profile of a browser that has ended, without the marks of the process that had it open. */
export function copyProfile(from: string, to: string): void {
  cpSync(from, to, { recursive: true, filter: (path) => !basename(path).startsWith('Singleton') })
}

function chromiumPath(): string | undefined {
  return process.env['CHROMIUM_PATH'] ?? PLACES.find((path) => existsSync(path))
}

async function endpointOf(child: ChildProcess): Promise<string> {
  if (child.stderr === null) throw new Error('Chromium has no stderr')
  const said: string[] = []
  const lines = createInterface(child.stderr)
  for await (const line of lines) {
    const [, endpoint] = /DevTools listening on (ws:\S+)/.exec(line) ?? []
    if (endpoint !== undefined) {
      // It goes on talking; a full pipe would stop it.
      child.stderr.resume()
      return endpoint
    }
    said.push(line)
  }
  throw new Error(`Chromium did not start:\n${said.join('\n')}`)
}

function contextOf(browser: Browser): BrowserContext {
  const [context] = browser.contexts()
  if (context === undefined) throw new Error('Chromium has no default context')
  return context
}
