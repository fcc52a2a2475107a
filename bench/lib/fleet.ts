/**
 * Server processes of a soak: N over one PostgreSQL database, each with its own directory, or one over SQLite. A killed
 * process is restarted; meanwhile callers get another process, or wait.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ServerProcess, startProcess } from '@latchkey/testing/server-process.ts'

/** Kept log lines per process, enough to show why it failed. */
const KEPT_LINES = 20

export type Fleet = {
  /** A random running process. */
  pick(random: () => number): Promise<{ readonly process: number; readonly url: string }>
  /** Kills a random process with SIGKILL and restarts it. */
  killOne(random: () => number): Promise<void>
  readonly kills: number
  /** The last lines of each process that ended, by `stop` or a kill. */
  readonly logged: readonly string[]
  stop(): Promise<void>
}

/** Without `database` there is one process, over SQLite in `directory`. Odd processes run from `otherCheckout`. */
export async function startFleet(options: {
  readonly directory: string
  readonly processes: number
  readonly database?: string
  readonly otherCheckout?: string
}): Promise<Fleet> {
  const { directory, processes, database, otherCheckout } = options
  const flags = ['--registration', 'open', '--limits', 'off', '--server-name', 'soak.example']
  if (database !== undefined) flags.push('--database', database)
  const start = (n: number): Promise<ServerProcess> =>
    startProcess(join(directory, `process-${n}`), flags, {}, n % 2 === 1 ? otherCheckout : undefined)
  const running: (ServerProcess | undefined)[] = []
  // The first process creates the schema; the others find it complete.
  for (let n = 0; n < processes; n++) running.push(await start(n))
  let kills = 0
  const logged: string[] = []
  const noteLog = (n: number, server: ServerProcess): void => {
    const lines = server.log().split('\n').slice(-KEPT_LINES)
    logged.push(...lines.filter((line) => line !== '').map((line) => `process ${n}: ${line}`))
  }
  return {
    get kills() {
      return kills
    },
    logged,
    async pick(random) {
      for (;;) {
        const up = running.flatMap((server, n) =>
          server === undefined ? [] : [{ process: n, url: server.url }],
        )
        const chosen = up[Math.floor(random() * up.length)]
        if (chosen !== undefined) return chosen
        await sleep(20)
      }
    },
    async killOne(random) {
      const n = Math.floor(random() * processes)
      const server = running[n]
      if (server === undefined) return
      running[n] = undefined
      kills++
      await server.kill()
      noteLog(n, server)
      running[n] = await start(n)
    },
    async stop() {
      const up = running.flatMap((server, n) => (server === undefined ? [] : [{ server, n }]))
      await Promise.all(up.map(({ server }) => server.stop()))
      for (const { server, n } of up) noteLog(n, server)
    },
  }
}
