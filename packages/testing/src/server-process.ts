/** Latchkey as a separate process, as an operator runs it, so that tests can kill it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { environmentFor } from './process-environment.ts'

const CHECKOUT = join(import.meta.dirname, '../../..')
const COMMAND = 'packages/server/bin/latchkey.mjs'

export type ServerProcess = {
  readonly url: string
  /** kill -9: all memory is lost, as in a power cut. */
  kill(): Promise<void>
  /** SIGTERM, as an operator stops it. Resolves with the exit code. */
  stop(): Promise<number | null>
  /** End of its log (KEPT_LOG characters). */
  log(): string
  /** Number of log entries that report a raised fence. */
  alarms(): number
}

const KEPT_LOG = 20_000

/** Starts `latchkey serve` of a checkout on a free port and resolves when it reports that it is ready. */
export async function startProcess(
  dataDir: string,
  flags: readonly string[] = [],
  environment: Readonly<Record<string, string>> = {},
  checkout = CHECKOUT,
): Promise<ServerProcess> {
  const serve = [join(checkout, COMMAND), 'serve', '--port', '0', '--data', dataDir, ...flags]
  const child = spawn(process.execPath, serve, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environmentFor(serve), ...environment },
  })
  const exited = once(child, 'exit')
  // A failed test leaves no server behind.
  const end = (): boolean => child.kill('SIGKILL')
  process.once('exit', end)
  child.once('exit', () => process.off('exit', end))
  let log = ''
  let alarms = 0
  child.stderr?.on('data', (chunk) => (log = (log + String(chunk)).slice(-KEPT_LOG)))
  const lines = child.stderr && createInterface(child.stderr)
  lines?.on('line', (line) => (alarms += Number(line.includes('FENCE RAISED'))))
  const url = await readyUrl(child)
  return {
    url,
    log: () => log,
    alarms: () => alarms,
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
    async stop() {
      child.kill('SIGTERM')
      const [code] = await exited
      return typeof code === 'number' ? code : null
    },
  }
}

function readyUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = ''
    const read = (chunk: Buffer): void => {
      output += chunk.toString()
      const [url] = /http:\/\/[\w.:[\]]+/.exec(output) ?? []
      if (url !== undefined) resolve(url)
    }
    child.stdout?.on('data', read)
    child.stderr?.on('data', (chunk: Buffer) => {
      if (output.length < KEPT_LOG) output += chunk.toString()
    })
    child.once('exit', (code) =>
      reject(new Error(`the server exited with ${code} before it was ready:\n${output}`)),
    )
  })
}
