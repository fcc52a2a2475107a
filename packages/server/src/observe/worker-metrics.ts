/**
 * The metrics of many processes as one page. A counter must never fall: what a process had counted when it was last asked
 * stays in the sums after its death, and what it counted since is lost. Gauges are of the living only.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { AggregatorRegistry, Counter, Gauge, Registry } from 'prom-client'

/** A registry's metrics as they travel between processes. */
export type Counts = readonly {
  readonly name: string
  readonly type: string
  readonly aggregator: string
  readonly values: readonly object[]
}[]

/** A process that counts. `ask` may take for ever when it hangs. */
export type CountsSource = { readonly ask: () => Promise<Counts> }

/** Who does not answer by then counts with what it said last. */
const ANSWER_WITHIN_MS = 2_000

export class WorkerMetrics {
  readonly #own = new Registry()
  readonly #restarts: Counter
  /** With what each said last. */
  readonly #sources = new Map<CountsSource, Counts>()
  readonly #departed: Counts[] = []
  #collecting: Promise<string> | undefined

  constructor() {
    const workers = (): number => this.#sources.size
    this.#own.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_workers',
        help: 'Workers that are ready; only with more than one.',
        collect() {
          this.set(workers())
        },
      }),
    )
    this.#restarts = new Counter({
      registers: [this.#own],
      name: 'latchkey_worker_restarts_total',
      help: 'Workers that ended unexpectedly; only with more than one.',
    })
  }

  add(source: CountsSource): void {
    this.#sources.set(source, [])
  }

  remove(source: CountsSource): void {
    const last = this.#sources.get(source) ?? []
    this.#sources.delete(source)
    this.#departed.push(last.filter(({ type }) => type === 'counter' || type === 'histogram'))
  }

  /** A worker ended that should not have. */
  restarted(): void {
    this.#restarts.inc()
  }

  /** The page. Requests that come while it is made share it. */
  text(): Promise<string> {
    this.#collecting ??= this.#collect().finally(() => (this.#collecting = undefined))
    return this.#collecting
  }

  /** The names and meanings of the metrics that are not a worker's own. */
  get registry(): Registry {
    return this.#own
  }

  async #collect(): Promise<string> {
    await Promise.all([...this.#sources.keys()].map((source) => this.#ask(source)))
    const departed = this.#departed.splice(0)
    const [own, gone] = await Promise.all([countsOf(this.#own), countsOf(sumOf(departed))])
    this.#departed.push(gone)
    return sumOf([own, ...this.#departed, ...this.#sources.values()]).metrics()
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
