/**
 * Aggregates the metrics of several processes into one page. Counters must never decrease: the last reported counts of
 * an exited process stay in the sums; later ones are lost. Gauges include running processes only.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { AggregatorRegistry, Counter, Gauge, Registry } from 'prom-client'

/** A registry's metrics, serialised for transfer between processes. */
export type Counts = readonly {
  readonly name: string
  readonly type: string
  readonly aggregator: string
  readonly values: readonly object[]
}[]

/** A process with metrics. `ask` may never settle if the process hangs. */
export type CountsSource = { readonly ask: () => Promise<Counts> }

/** A process that does not answer in time is included with its last reported counts. */
const ANSWER_WITHIN_MS = 2_000

export class WorkerMetrics {
  readonly #own = new Registry()
  readonly #restarts: Counter
  /** Sources with their last reported counts. */
  readonly #sources = new Map<CountsSource, Counts>()
  readonly #exited: Counts[] = []
  #collecting: Promise<string> | undefined

  constructor() {
    const workers = (): number => this.#sources.size
    this.#own.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_workers',
        help: 'Workers that are ready; reported only with more than one.',
        collect() {
          this.set(workers())
        },
      }),
    )
    this.#restarts = new Counter({
      registers: [this.#own],
      name: 'latchkey_worker_restarts_total',
      help: 'Workers that exited unexpectedly; reported only with more than one.',
    })
  }

  add(source: CountsSource): void {
    this.#sources.set(source, [])
  }

  remove(source: CountsSource): void {
    const last = this.#sources.get(source) ?? []
    this.#sources.delete(source)
    this.#exited.push(last.filter(({ type }) => type === 'counter' || type === 'histogram'))
  }

  /** Counts an unexpected exit of a worker. */
  restarted(): void {
    this.#restarts.inc()
  }

  /** Renders the page. Concurrent requests share one rendering. */
  text(): Promise<string> {
    this.#collecting ??= this.#collect().finally(() => (this.#collecting = undefined))
    return this.#collecting
  }

  /** Registry of the metrics of the parent process. */
  get registry(): Registry {
    return this.#own
  }

  async #collect(): Promise<string> {
    await Promise.all([...this.#sources.keys()].map((source) => this.#ask(source)))
    const exited = this.#exited.splice(0)
    const [own, exitedSum] = await Promise.all([countsOf(this.#own), countsOf(sumOf(exited))])
    this.#exited.push(exitedSum)
    return sumOf([own, ...this.#exited, ...this.#sources.values()]).metrics()
  }

  async #ask(source: CountsSource): Promise<void> {
    const timer = new AbortController()
    const late = wait(ANSWER_WITHIN_MS, undefined, { signal: timer.signal }).catch(() => undefined)
    const counts = await Promise.race([source.ask().catch(() => undefined), late])
    timer.abort()
    if (counts !== undefined && this.#sources.has(source)) this.#sources.set(source, counts)
  }
}

export async function countsOf(registry: Registry): Promise<Counts> {
  return (await registry.getMetricsAsJSON()) as unknown as Counts
}

function sumOf(counts: readonly Counts[]): Registry {
  return AggregatorRegistry.aggregate([...counts])
}
