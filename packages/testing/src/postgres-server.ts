/** A PostgreSQL server process over an existing data directory, with the stop modes of `pg_ctl stop`. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import { findPostgresBinaries } from './postgres-binaries.ts'
import type { PostgresHome } from './postgres-home.ts'

export type PostgresServer = {
  readonly running: boolean
  /** Resolves when the process has ended, for any reason. */
  readonly ended: Promise<void>
  /** `fast` ends sessions and writes a checkpoint. `immediate` simulates a crash; the next start recovers. */
  shutDown(mode: 'fast' | 'immediate'): Promise<void>
}

export type Settings = Readonly<Record<string, string>>

const START_WITHIN_MS = 30_000
const KEPT_LOG = 20_000

/**
 * Resolves when the server accepts connections (a standby: read-only ones).
 *
 * @throws {Error} when it ends before that or is not ready in time; the message has its output.
 */
export async function startPostgresServer(
  { path, data, owner }: PostgresHome,
  url: string,
  settings: Settings,
): Promise<PostgresServer> {
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const child = spawn(
    join(findPostgresBinaries(), 'postgres'),
    ['-D', data, '-p', new URL(url).port, ...flags],
    {
      ...owner,
      cwd: path,
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  )
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve())
    child.once('error', () => resolve())
  })
  await ready(child, url)
  const running = (): boolean => child.exitCode === null && child.signalCode === null
  return {
    get running() {
      return running()
    },
    ended,
    async shutDown(mode) {
      if (running()) child.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT')
      await ended
    },
  }
}

async function ready(server: ChildProcess, url: string): Promise<void> {
  let printed = ''
  const accepting = Promise.withResolvers<void>()
  server.stderr?.on('data', (chunk) => {
    // Only the beginning of the log is kept.
    if (printed.length < KEPT_LOG) printed += String(chunk)
    if (/ready to accept (?:read-only )?connections/.test(printed)) accepting.resolve()
  })
  server.once('error', accepting.reject)
  server.once('exit', () => accepting.reject(new Error(`PostgreSQL ended during its start:\n${printed}`)))
  const watchdog = setTimeout(() => {
    server.kill('SIGQUIT')
    accepting.reject(new Error(`PostgreSQL was not ready within ${START_WITHIN_MS} ms:\n${printed}`))
  }, START_WITHIN_MS)
  await accepting.promise.finally(() => clearTimeout(watchdog))
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.end()
}

/** A loopback port on which no process listens now. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  await new Promise((resolve) => probe.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
