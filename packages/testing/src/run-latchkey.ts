/** Runs the `latchkey` command as a real process; tests wait for its output and end it by its own handle. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { environmentFor } from './process-environment.ts'

export const REPOSITORY = fileURLToPath(new URL('../../../', import.meta.url))
export const LATCHKEY = join(REPOSITORY, 'packages/server/bin/latchkey.mjs')

export type Ended = {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export type RunOptions = {
  readonly cwd?: string
  readonly stdin?: string
  readonly environment?: Record<string, string>
}

/** A process that hangs is killed, and its test fails. */
const WATCHDOG_MS = 90_000

export class RunningProcess {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  readonly #output = { stdout: '', stderr: '' }

  constructor(command: string, args: readonly string[], { cwd, stdin, environment }: RunOptions = {}) {
    this.child = spawn(command, args, {
      cwd: cwd ?? REPOSITORY,
      env: { ...environmentFor(args), LATCHKEY_SECURITY_LOG: 'off', ...environment },
      stdio: 'pipe',
      // Its own process group, so that npm and the server it starts end together even if the test fails.
      detached: true,
    })
    const watchdog = setTimeout(() => this.#killGroup(), WATCHDOG_MS)
    // Ignores EPIPE: the output of a process that ended without reading its input shows why.
    this.child.stdin?.on('error', () => {}).end(stdin ?? '')
    this.child.stdout?.on('data', (chunk) => (this.#output.stdout += String(chunk)))
    this.child.stderr?.on('data', (chunk) => (this.#output.stderr += String(chunk)))
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject)
      this.child.once('close', (code, signal) => {
        clearTimeout(watchdog)
        resolve({ code, signal, ...this.#output })
      })
    })
  }

  /** Resolves with the pattern's match in the output; rejects when the process ends without one. */
  async printed(pattern: RegExp, stream: 'stdout' | 'stderr' = 'stdout'): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.#output[stream])
      if (found !== null) return found
      const more = new Promise<undefined>((resolve) =>
        this.child[stream]?.once('data', () => resolve(undefined)),
      )
      const ended = await Promise.race([more, this.ended])
      if (ended !== undefined && !pattern.test(this.#output[stream]))
        throw new Error(`ended without ${pattern}: ${JSON.stringify(ended)}`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#killGroup()
    await this.ended
  }

  #killGroup(): void {
    const { pid, exitCode, signalCode } = this.child
    if (pid === undefined || exitCode !== null || signalCode !== null) return
    process.kill(-pid, 'SIGKILL')
  }
}

/** Runs `latchkey` with this Node.js until it ends. */
export function runLatchkey(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return new RunningProcess(process.execPath, [LATCHKEY, ...args], options).ended
}

/** Starts `latchkey serve` on a free port; resolves when it is ready. */
export async function startLatchkey(
  args: readonly string[],
  options?: RunOptions,
): Promise<RunningProcess & { readonly url: string }> {
  const running = new RunningProcess(process.execPath, [LATCHKEY, 'serve', '--port', '0', ...args], options)
  const [, url = ''] = await running.printed(READY)
  return Object.assign(running, { url })
}

export const READY = /Latchkey is ready: (\S+), .*\n/

export function temporaryDirectory(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), 'latchkey-cli-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}
