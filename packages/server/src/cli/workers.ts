/**
 * `latchkey serve --workers N`: forks the workers, replaces those that die, and ends them all. The first one starts alone, so that what is wrong is told once; if the first start of any fails,
 * everything ends. Later a worker that cannot start is tried again, more and more seldom.
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
import { endOnSignal } from './end-on-signal.ts'
import type { FromWorker, Ready, ToWorker } from './worker-messages.ts'

/** Above the deadline of each worker, and below the 5 seconds that are promised. */
const DRAIN_DEADLINE_MS = 4_750
const FIRST_DELAY_MS = 100
const LONGEST_DELAY_MS = 10_000
/** One that was ready for so long did not die of its start: the next delay is the first again. */
const STEADY_MS = 30_000

export type Serving = Ready & {
  /** Where the metrics of all are. */
  readonly metricsUrl?: string
}

/**
 * Starts `config.workers` workers, and keeps that many until a signal ends the process.
 *
 * @throws {WorkerFailure} when they cannot start; none is left then
 * @throws {ConfigError} when the address of the metrics cannot be had; the system's error when that of the clients cannot
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
  const crew = new Crew({ ...config, port }, metrics, log)
  try {
    const ready = await crew.start(config.workers)
    endOnSignal({
      drain: () => crew.end(),
      deadlineMs: DRAIN_DEADLINE_MS,
      beforeCut: () => crew.kill(),
    })
    return { ...ready, ...(page && { metricsUrl: page.url }) }
  } catch (error) {
    await crew.end()
    await page?.close()
    throw error
  }
}

type Exit = { readonly code: number | null; readonly signal: string | null; readonly readyForMs: number }

/** One worker, from its fork to its end. */
type Member = {
  readonly worker: Worker
  /** Rejects with a WorkerFailure when it ends before. */
  readonly ready: Promise<Ready>
  readonly ended: Promise<Exit>
}

class Crew {
  readonly #config: Config
  readonly #metrics: WorkerMetrics
  readonly #log: Logger
  readonly #members = new Set<Member>()
  readonly #ending = new AbortController()
  readonly #places: Promise<void>[] = []
  #cut = false

  constructor(config: Config, metrics: WorkerMetrics, log: Logger) {
    this.#config = config
    this.#metrics = metrics
    this.#log = log
  }

  /** @throws {WorkerFailure} of the first that failed */
  async start(count: number): Promise<Ready> {
    const first = this.#fork()
    const ready = await first.ready
    const others = Array.from({ length: count - 1 }, () => this.#fork())
    await Promise.all(others.map((member) => member.ready))
    for (const member of [first, ...others]) this.#places.push(this.#keep(member))
    return ready
  }

  /** Passes the end on. Resolves when all are gone: cut, if one had to leave requests unanswered. */
  async end(): Promise<'ended' | 'cut'> {
    this.#ending.abort()
    for (const { worker } of this.#members) worker.process.kill('SIGTERM')
    await Promise.all([...this.#places, ...[...this.#members].map(({ ended }) => ended)])
    return this.#cut ? 'cut' : 'ended'
  }

  kill(): void {
    for (const { worker } of this.#members) worker.process.kill('SIGKILL')
  }

  /** One place among the workers: whoever dies there is followed by another, until the end. */
  async #keep(member: Member): Promise<void> {
    let delayMs = FIRST_DELAY_MS
    for (let current = member; ; current = this.#fork()) {
      const failure = current.ready.then(
        () => undefined,
        (error: Error) => error.message,
      )
      const { code, signal, readyForMs } = await current.ended
      if (this.#ending.signal.aborted) {
        if (readyForMs > 0 && (code === 1 || signal === 'SIGKILL')) this.#cut = true
        return
      }
      if (readyForMs >= STEADY_MS) delayMs = FIRST_DELAY_MS
      const { pid } = current.worker.process
      const reason = readyForMs > 0 ? undefined : await failure
      this.#metrics.restarted()
      this.#log.error(
        { worker: pid, code, signal, ...(reason !== undefined && { reason }), againInMs: delayMs },
        reason === undefined
          ? 'a worker ended; another one takes its place'
          : 'a worker could not start; it is tried again',
      )
      await wait(delayMs, undefined, { signal: this.#ending.signal }).catch(() => {})
      if (this.#ending.signal.aborted) return
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)
    }
  }

  #fork(): Member {
    const worker = cluster.fork()
    const ready = Promise.withResolvers<Ready>()
    const ended = Promise.withResolvers<Exit>()
    const asked: ((counts: Counts) => void)[] = []
    const source: CountsSource = {
      ask: () =>
        new Promise((resolve) => {
          asked.push(resolve)
          tell(worker, { type: 'count' })
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
          for (const resolve of asked.splice(0)) resolve(message.counts)
      }
    })
    // A message to a worker that is just dying fails here, and would end this process.
    worker.on('error', () => {})
    const member: Member = { worker, ready: ready.promise, ended: ended.promise }
    worker.once('exit', (code: number | null, signal: string | null) => {
      this.#members.delete(member)
      if (readyAtMs !== undefined) this.#metrics.remove(source)
      ready.reject(new WorkerFailure(reason ?? `A worker ended at its start (${signal ?? `code ${code}`}).`))
      const readyForMs = readyAtMs === undefined ? 0 : Math.max(1, performance.now() - readyAtMs)
      ended.resolve({ code, signal, readyForMs })
    })
    // Whoever waits for it hears of it all the same.
    ready.promise.catch(() => {})
    this.#members.add(member)
    tell(worker, { type: 'start', config: this.#config })
    return member
  }
}

function tell(worker: Worker, message: ToWorker): void {
  if (worker.isConnected()) worker.send(message)
}

/**
 * A port that nobody listens on: workers share theirs, so they would not notice. A free one is chosen here, because each
 * worker would choose its own.
 *
 * @throws the system's error when another program has it
 */
async function probePort({ host, port }: Config): Promise<number> {
  const probe = createServer()
  probe.listen({ host, port })
  await once(probe, 'listening')
  const address = probe.address()
  const closed = once(probe, 'close')
  probe.close()
  await closed
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
