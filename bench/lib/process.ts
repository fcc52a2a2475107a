/**
 * Servers under test as separate processes. With enough cores and `taskset`, they run on one core and this process on
 * another.
 */
import { environmentFor } from '@latchkey/testing/process-environment.ts'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export type Running = { readonly url: string; readonly pid: number; stop(): Promise<void> }

const SERVER_CORE = '0'
const LOAD_CORE = '1'

export type StartOptions = {
  /** False lets all processes use all cores. */
  readonly pinned?: boolean
  /** Checkout whose server runs. Default: this one. */
  readonly checkout?: string
}

const CHECKOUT = join(import.meta.dirname, '../..')

/** Pins this process to its core. Returns false if that is not possible. */
function pinLoad(): boolean {
  if (cpus().length < 2) return false
  try {
    execFileSync('taskset', ['-cp', LOAD_CORE, String(process.pid)], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

export function startLatchkey(
  dataDir: string,
  flags: readonly string[] = [],
  options: StartOptions = {},
): Promise<Running> {
  const command = join(options.checkout ?? CHECKOUT, 'packages/server/bin/latchkey.mjs')
  const quiet = ['--limits', 'off', '--log-level', 'error']
  return start([command, 'serve', '--port', '0', '--data', dataDir, ...quiet, ...flags], options)
}

export function startYardstick(options: StartOptions = {}): Promise<Running> {
  return start([fileURLToPath(new URL('yardstick.ts', import.meta.url))], options)
}

async function start(args: readonly string[], { pinned = true }: StartOptions): Promise<Running> {
  const [command, all] =
    pinned && pinLoad()
      ? ['taskset', ['-c', SERVER_CORE, process.execPath, ...args]]
      : [process.execPath, [...args]]
  const child = spawn(command, all, { stdio: ['ignore', 'pipe', 'inherit'], env: environmentFor(args) })
  const exited = once(child, 'exit')
  const url = await firstUrl(child)
  return {
    url,
    pid: child.pid ?? 0,
    async stop() {
      child.kill('SIGTERM')
      await exited
    },
  }
}

function firstUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.stdout?.on('data', (chunk: Buffer) => {
      const [url] = /http:\/\/[\w.:]+/.exec(chunk.toString()) ?? []
      if (url !== undefined) resolve(url)
    })
    child.once('exit', (code) => reject(new Error(`the server exited with ${code}`)))
  })
}

/** Resident memory of a process in bytes (Linux). */
export function residentBytes(pid: number): number {
  const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kilobytes) * 1024
}

/** User and system time of a process so far in microseconds (Linux; ticks of 10 ms). */
export function cpuMicroseconds(pid: number): number {
  return statOf(pid).own * TICK_MICROSECONDS
}

/** As `cpuMicroseconds`, including the process's children, running and ended. */
export function familyCpuMicroseconds(pid: number): number {
  const { own, ended } = statOf(pid)
  const children = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(name) === pid)
  const theirs = children.reduce((sum, child) => sum + cpuMicroseconds(Number(child)), 0)
  return (own + ended) * TICK_MICROSECONDS + theirs
}

const TICK_MICROSECONDS = 10_000

type Stat = { readonly parent: number; readonly own: number; readonly ended: number }

/** Times in ticks: `own` of the process, `ended` of its children that have ended. */
function statOf(pid: number | string): Stat {
  const [, afterName = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')
  const fields = afterName.split(' ').map(Number)
  const at = (index: number): number => fields[index] ?? Number.NaN
  return { parent: at(1), own: at(11) + at(12), ended: at(13) + at(14) }
}

/** Undefined if the process has ended by now. */
function parentOf(pid: string): number | undefined {
  try {
    return statOf(pid).parent
  } catch {
    return undefined
  }
}
