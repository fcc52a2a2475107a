/** Servers under test as processes of their own, on a core of their own where `taskset` is there to pin them. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

export type Running = { readonly url: string; readonly pid: number; stop(): Promise<void> }

const SERVER_CORE = '0'
const LOAD_CORE = '1'
const PINNED = availableParallelism() > 1 && hasTaskset()

function hasTaskset(): boolean {
  try {
    execFileSync('taskset', ['-cp', LOAD_CORE, String(process.pid)], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

export function startLatchkey(dataDir: string, flags: readonly string[] = []): Promise<Running> {
  const command = fileURLToPath(new URL('../../packages/server/bin/latchkey.mjs', import.meta.url))
  return start([command, 'serve', '--port', '0', '--data', dataDir, '--limits', 'off', ...flags])
}

export function startYardstick(): Promise<Running> {
  return start([fileURLToPath(new URL('yardstick.ts', import.meta.url))])
}

async function start(args: readonly string[]): Promise<Running> {
  const [command, all] = PINNED
    ? ['taskset', ['-c', SERVER_CORE, process.execPath, ...args]]
    : [process.execPath, [...args]]
  const child = spawn(command, all, { stdio: ['ignore', 'pipe', 'inherit'] })
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
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)))
  })
}

/** Resident memory of a process in bytes (Linux). */
export function residentBytes(pid: number): number {
  const [, kilobytes] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kilobytes) * 1024
}

/** User and system time a process has used so far, in microseconds (Linux; ticks of 10 ms). */
export function cpuMicroseconds(pid: number): number {
  const afterName = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1] ?? ''
  const fields = afterName.split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}
