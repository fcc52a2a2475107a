/**
 * An open-loop load: requests are due at a fixed rate regardless of the servers, and each latency counts from the time
 * its request was due. A stall is therefore visible in the latencies of all requests that it delayed.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, Connection, percentile, type Request } from './load.ts'

export type OpenLoopOptions = {
  readonly urls: readonly string[]
  readonly perSecond: number
  readonly durationMs: number
  /** Undefined ends the load. */
  readonly next: () => Request | undefined
  readonly onAnswer?: (answer: Answer) => void
}

export type OpenLoopResult = {
  readonly requests: number
  readonly failures: number
  /** Whether `next` ended the load. */
  readonly ranOut: boolean
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
}

/** More than needed at half of a server's capacity. Waiting for a free connection counts as latency. */
const CONNECTIONS = 128
/** Interval at which due requests are sent; also the error of a latency. */
const TICK_MS = 1

export async function runOpenLoop(options: OpenLoopOptions): Promise<OpenLoopResult> {
  const { urls, perSecond, durationMs } = options
  const free = await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, n) => Connection.to(urls[n % urls.length] ?? '')),
  )
  const all = [...free]
  const latencies: number[] = []
  let failures = 0
  let ranOut = false
  const waiting: { readonly request: Request; readonly due: number }[] = []
  const underWay = new Set<Promise<void>>()
  const sendAll = (): void => {
    while (waiting.length > 0) {
      const connection = free.shift()
      const first = connection && waiting.shift()
      if (connection === undefined || first === undefined) return
      const sent = send(connection, first.request, first.due)
      underWay.add(sent)
      sent.finally(() => underWay.delete(sent)).catch(() => {})
    }
  }
  const send = async (connection: Connection, request: Request, due: number): Promise<void> => {
    const answer = await connection.send(request).catch(() => undefined)
    latencies.push(performance.now() - due)
    if (answer?.status !== 200) failures++
    if (answer === undefined) return
    options.onAnswer?.(answer)
    free.push(connection)
    sendAll()
  }
  const began = performance.now()
  for (let n = 0, over = false; !over; ) {
    await sleep(TICK_MS)
    const elapsed = performance.now() - began
    for (; !over && (n * 1000) / perSecond <= Math.min(elapsed, durationMs); n++) {
      const request = options.next()
      if (request === undefined) over = ranOut = true
      else waiting.push({ request, due: began + (n * 1000) / perSecond })
    }
    over ||= elapsed > durationMs
    sendAll()
  }
  while (underWay.size > 0) await Promise.all(underWay)
  for (const connection of all) connection.close()
  latencies.sort((a, b) => a - b)
  return {
    requests: latencies.length,
    failures,
    ranOut,
    p50Ms: percentile(latencies, 0.5),
    p95Ms: percentile(latencies, 0.95),
    p99Ms: percentile(latencies, 0.99),
  }
}
