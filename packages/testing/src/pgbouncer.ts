/** A real pgbouncer in front of a PostgreSQL server, for the tests of poolers. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { makePostgresHome, type PostgresHome } from './postgres-home.ts'
import { freePort } from './postgres-server.ts'

const PLACES = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer']
const binary = PLACES.find((path) => existsSync(path))

/** The `skip` of a test: why there is no pgbouncer, or false. With CI=true it must be installed. */
export const noPgbouncer =
  binary === undefined &&
  process.env['CI'] !== 'true' &&
  'pgbouncer is not installed (Debian: apt-get install pgbouncer)'

export type Pgbouncer = AsyncDisposable & {
  /** The URL of a database of the server, through pgbouncer. */
  through(url: string): string
  /** Every connection through it ends. Resolves when it listens again, on the same port. */
  restart(): Promise<void>
}

/** Starts pgbouncer before the server of a URL; resolves when it listens. */
export async function startPgbouncer(url: string, mode: 'session' | 'transaction'): Promise<Pgbouncer> {
  if (binary === undefined)
    throw new Error('pgbouncer is not installed. Debian: apt-get install pgbouncer; .ci/run does it.')
  const { hostname, port, username, password } = new URL(url)
  const home = makePostgresHome()
  const listenPort = await freePort()
  const config = home.write(
    'pgbouncer.ini',
    `[databases]
* = host=${hostname} port=${port} user=${username} password=${decodeURIComponent(password)}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${listenPort}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
`,
  )
  let child = await run(binary, config, home)
  return {
    through(target) {
      const through = new URL(target)
      through.host = `127.0.0.1:${listenPort}`
      return through.href
    },
    async restart() {
      await kill(child)
      child = await run(binary, config, home)
    },
    async [Symbol.asyncDispose]() {
      await kill(child)
      await home.remove()
    },
  }
}

async function run(program: string, config: string, home: PostgresHome): Promise<ChildProcess> {
  const child = spawn(program, [config], {
    ...home.owner,
    cwd: home.path,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let log = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (chunk) => {
      log += String(chunk)
      if (/process up/.test(log)) resolve()
    })
    child.once('error', reject)
    child.once('exit', () => reject(new Error(`pgbouncer ended during its start:\n${log}`)))
  })
  return child
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
