/**
 * `latchkey serve --workers N`: forks the workers, replaces those that exit, and shuts them all down. The first worker
 * starts alone, so that an error is reported once; if any worker fails its first start, the command fails. Later a
 * worker that cannot start is retried with increasing delays.
 */
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { type Logger, pino } from 'pino'
import type { Config } from '../config/config.ts'
import { openMetricsPage } from '../observe/metrics-page.ts'
import { type Counts, type CountsSource, WorkerMetrics } from '../observe/worker-metrics.ts'
import { WorkerFailure } from './describe-failure.ts'
import { shutdownOnSignal } from './shutdown-on-signal.ts'
import type { FromWorker, Ready, ToWorker } from './worker-messages.ts'

/** Above the deadline of each worker, and below the documented 5 seconds. */
const DRAIN_DEADLINE_MS = 4_750
const FIRST_DELAY_MS = 100
const LONGEST_DELAY_MS = 10_000
/** A worker that was ready for this long resets the restart delay. */
const RESET_DELAY_AFTER_MS = 30_000

export type Serving = Ready & {
  /** URL of the metrics of all workers. */
  readonly metricsUrl?: string
}

/**
 * Starts `config.workers` workers, and keeps that many running until a signal stops the process.
 *
 * @throws {WorkerFailure} if they cannot start; none is left running
 * @throws {ConfigError} if the metrics address is unavailable; the system's error if the client address is
 */
export async function serveWithWorkers(config: Config): Promise<Serving> {
  const { metricsHost: host, metricsPort } = config
  const port = await probePort(config)
  const metrics = new WorkerMetrics()
  const page =
    metricsPort === undefined
      ? undefined
      : await openMetricsPage({ host, port: metricsPort }, () => metrics.text())
  const log = pino({ level: config.logLevel }, process.stderr)
  const pool = new WorkerPool({ ...config, port }, metrics, log)
  try {
    const ready = await pool.start(config.workers)
    shutdownOnSignal({
      drain: () => pool.shutdown(),
      deadlineMs: DRAIN_DEADLINE_MS,
      beforeExitNow: () => pool.kill(),
    })
    return { ...ready, ...(page && { metricsUrl: page.url }) }
  } catch (error) {
    await pool.shutdown()
    await page?.close()
    throw error
  }
}

type Exit = { readonly code: number | null; readonly signal: string | null; readonly readyForMs: number }

/** One worker, from fork to exit. */
type WorkerHandle = {
  readonly worker: Worker
  /** Rejects with a WorkerFailure if the worker exits first. */
  readonly ready: Promise<Ready>
  readonly exited: Promise<Exit>
}

class WorkerPool {
  readonly #config: Config
  readonly #metrics: WorkerMetrics
  readonly #log: Logger
  readonly #workers = new Set<WorkerHandle>()
  readonly #stopping = new AbortController()
  readonly #slots: Promise<void>[] = []
  #aborted = false

  constructor(config: Config, metrics: WorkerMetrics, log: Logger) {
    this.#config = config
    this.#metrics = metrics
    this.#log = log
  }

  /** @throws {WorkerFailure} of the first worker that failed */
  async start(count: number): Promise<Ready> {
    const first = this.#fork()
    const ready = await first.ready
    const others = Array.from({ length: count - 1 }, () => this.#fork())
    await Promise.all(others.map((handle) => handle.ready))
    for (const handle of [first, ...others]) this.#slots.push(this.#keepSlotFilled(handle))
    return ready
  }

  /** Stops all workers. Resolves when they have exited: `aborted` if one left requests unanswered. */
  async shutdown(): Promise<'ended' | 'aborted'> {
    this.#stopping.abort()
    for (const { worker } of this.#workers) worker.process.kill('SIGTERM')
    await Promise.all([...this.#slots, ...[...this.#workers].map(({ exited }) => exited)])
    return this.#aborted ? 'aborted' : 'ended'
  }

  kill(): void {
    for (const { worker } of this.#workers) worker.process.kill('SIGKILL')
  }

  /** Supervises one slot: forks a new worker whenever the current one exits, until shutdown. */
  async #keepSlotFilled(handle: WorkerHandle): Promise<void> {
    let delayMs = FIRST_DELAY_MS
    for (let current = handle; ; current = this.#fork()) {
      const failure = current.ready.then(
        () => undefined,
        (error: Error) => error.message,
      )
      const { code, signal, readyForMs } = await current.exited
      if (this.#stopping.signal.aborted) {
        if (readyForMs > 0 && (code === 1 || signal === 'SIGKILL')) this.#aborted = true
        return
      }
      if (readyForMs >= RESET_DELAY_AFTER_MS) delayMs = FIRST_DELAY_MS
      const { pid } = current.worker.process
      const reason = readyForMs > 0 ? undefined : await failure
      this.#metrics.restarted()
      this.#log.error(
        { worker: pid, code, signal, ...(reason !== undefined && { reason }), retryInMs: delayMs },
        reason === undefined ? 'a worker exited; starting another one' : 'a worker failed to start; retrying',
      )
      await wait(delayMs, undefined, { signal: this.#stopping.signal }).catch(() => {})
      if (this.#stopping.signal.aborted) return
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)
    }
  }

  #fork(): WorkerHandle {
    const worker = cluster.fork()
    const ready = Promise.withResolvers<Ready>()
    const exited = Promise.withResolvers<Exit>()
    const pending: ((counts: Counts) => void)[] = []
    const source: CountsSource = {
      ask: () =>
        new Promise((resolve) => {
          pending.push(resolve)
          send(worker, { type: 'count' })
        }),
    }
    let readyAtMs: number | undefined
    let reason: string | undefined
    worker.on('message', (message: FromWorker) => {
      switch (message.type) {
        case 'ready':
          readyAtMs = performance.now()
          this.#metrics.add(source)
          return ready.resolve({ url: message.url, serverName: message.serverName })
        case 'failed':
          reason = message.message
          return
        case 'counts':
          for (const resolve of pending.splice(0)) resolve(message.counts)
      }
    })
    // A message to an exiting worker emits an error, which would crash this process if unhandled.
    worker.on('error', () => {})
    const handle: WorkerHandle = { worker, ready: ready.promise, exited: exited.promise }
    worker.once('exit', (code: number | null, signal: string | null) => {
      this.#workers.delete(handle)
      if (readyAtMs !== undefined) this.#metrics.remove(source)
      ready.reject(
        new WorkerFailure(reason ?? `A worker exited during startup (${signal ?? `code ${code}`}).`),
      )
      const readyForMs = readyAtMs === undefined ? 0 : Math.max(1, performance.now() - readyAtMs)
      exited.resolve({ code, signal, readyForMs })
    })
    // Prevents an unhandled rejection; awaiting callers still see it.
    ready.promise.catch(() => {})
    this.#workers.add(handle)
    send(worker, { type: 'start', config: this.#config })
    return handle
  }
}

function send(worker: Worker, message: ToWorker): void {
  if (worker.isConnected()) worker.send(message)
}

/**
 * Checks that the port is free: workers share theirs, so they would not notice another program. Resolves port 0 to a
 * free port, because each worker would choose a different one.
 *
 * @throws the system's error if the address is in use
 */
async function probePort({ host, port }: Config): Promise<number> {
  const probe = createServer()
  probe.listen({ host, port })
  await once(probe, 'listening')
  const address = probe.address()
  const closed = once(probe, 'close')
  probe.close()
  await closed
  if (address === null || typeof address === 'string') throw new Error('the probe socket has no port')
  return address.port
}
