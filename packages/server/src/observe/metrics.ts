/**
 * Prometheus metrics of a server. docs/reference/metrics.md lists the same names, labels and descriptions; a test
 * compares the two. Failed requests are not counted as issued or stored keys.
 */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Evicted } from '../messages/port.ts'
import type { ClaimResult, UploadResult } from '../pool/commands.ts'
import { SECURITY_EVENTS, type SecurityEvent } from './security-events.ts'
import type { ConnectionCounts } from '../store.ts'

/** Seconds. A claim takes a few milliseconds; a sync as long as it waits. */
const DURATION_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

const CLAIM_OUTCOMES = ['one_time_key', 'fallback', 'rate_limited', 'withheld', 'none'] as const
const CUT_CAUSES = ['stalled', 'slow', 'budget'] as const
const PURGE_CAUSES = ['conflict_healed', 'identity_changed'] as const

/** Values read only when metrics are collected. */
export type Watched = {
  readonly waitingSyncs: () => number
  readonly answerBytes: () => number
  /** Undefined without a connection pool. */
  readonly connections?: () => ConnectionCounts
}

/** @example const metrics = new Metrics(); metrics.sent(3, []); await metrics.registry.metrics() */
export class Metrics {
  readonly registry = new Registry()
  readonly #requests: Histogram<'method' | 'route' | 'status'>
  /** Cached per set of labels, because a lookup costs less than validating the labels. */
  readonly #observers = new Map<string, { observe(seconds: number): void }>()
  readonly #unavailable: Counter
  readonly #claims: Counter<'outcome'>
  readonly #uploads: Counter<'kind' | 'outcome'>
  readonly #evicted: Counter
  readonly #resets: Counter
  readonly #conflicts: Counter
  readonly #purges: Counter<'cause'>
  readonly #messages: Counter
  readonly #evictedMessages: Counter<'cause'>
  readonly #securityEvents: Counter<'event'>
  readonly #answersCut: Counter<'cause'>
  readonly #fence: Gauge
  readonly #fenceRaised: Counter

  constructor() {
    const registers = [this.registry]
    this.#requests = new Histogram({
      registers,
      name: 'latchkey_http_request_duration_seconds',
      help: 'Duration of client requests, from the end of the headers to the end of the answer. A sync includes its wait.',
      labelNames: ['method', 'route', 'status'],
      buckets: DURATION_BUCKETS,
    })
    this.#unavailable = new Counter({
      registers,
      name: 'latchkey_unavailable_total',
      help: 'Requests answered with 503, health checks excluded.',
    })
    this.#claims = new Counter({
      registers,
      name: 'latchkey_claims_total',
      help: 'Claims by result, one per device asked. `rate_limited` is a fallback key returned although one-time keys are left, `withheld` no key although some are left.',
      labelNames: ['outcome'],
    })
    this.#uploads = new Counter({
      registers,
      name: 'latchkey_uploaded_keys_total',
      help: 'Keys of uploads and resets that were answered with 200, by outcome.',
      labelNames: ['kind', 'outcome'],
    })
    this.#evicted = new Counter({
      registers,
      name: 'latchkey_evicted_keys_total',
      help: 'One-time keys evicted because their pool was full.',
    })
    this.#resets = new Counter({
      registers,
      name: 'latchkey_resets_total',
      help: 'Resets that were answered with 200, replays included.',
    })
    this.#conflicts = new Counter({
      registers,
      name: 'latchkey_key_conflicts_total',
      help: 'Uploads and resets refused because an available key has the same ID and other material.',
    })
    this.#purges = new Counter({
      registers,
      name: 'latchkey_purges_total',
      help: 'Devices whose available keys were purged by an upload.',
      labelNames: ['cause'],
    })
    this.#messages = new Counter({
      registers,
      name: 'latchkey_to_device_messages_total',
      help: 'To-device messages accepted, counted as in the request: a message to all devices of a user is one.',
    })
    this.#securityEvents = new Counter({
      registers,
      name: 'latchkey_security_events_total',
      help: 'Events of the security log, also those that were suppressed there.',
      labelNames: ['event'],
    })
    this.#answersCut = new Counter({
      registers,
      name: 'latchkey_answers_cut_total',
      help: 'Connections closed because the client took nothing of its answer (`stalled`), less than 1 KiB per second (`slow`), or while too many answers were unread (`budget`).',
      labelNames: ['cause'],
    })
    this.#evictedMessages = new Counter({
      registers,
      name: 'latchkey_evicted_messages_total',
      help: 'To-device messages evicted from a full inbox, by the limit that it exceeded.',
      labelNames: ['cause'],
    })
    this.#fence = new Gauge({
      registers,
      name: 'latchkey_fence',
      help: 'How often the rollback fence of the database was raised.',
      aggregator: 'max',
    })
    this.#fenceRaised = new Counter({
      registers,
      name: 'latchkey_fence_raised_total',
      help: 'How often this process raised the rollback fence.',
    })
    // Initialises the series: rate() does not see the first event of a new series.
    for (const outcome of CLAIM_OUTCOMES) this.#claims.inc({ outcome }, 0)
    for (const cause of CUT_CAUSES) this.#answersCut.inc({ cause }, 0)
    for (const cause of ['bytes', 'messages']) this.#evictedMessages.inc({ cause }, 0)
    for (const cause of PURGE_CAUSES) this.#purges.inc({ cause }, 0)
    for (const event of Object.keys(SECURITY_EVENTS)) this.#securityEvents.inc({ event }, 0)
    collectDefaultMetrics({ register: this.registry })
  }

  /** Registers values that are read at each collection. Call it once. */
  watch({ waitingSyncs, answerBytes, connections }: Watched): void {
    this.registry.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_answer_bytes_in_flight',
        help: 'Bytes of answers that clients have not taken yet.',
        collect() {
          this.set(answerBytes())
        },
      }),
    )
    this.registry.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_waiting_syncs',
        help: 'Syncs that are waiting now.',
        collect() {
          this.set(waitingSyncs())
        },
      }),
    )
    this.registry.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_database_connections',
        help: 'Connections to PostgreSQL for requests; not reported with the embedded database.',
        labelNames: ['state'],
        collect() {
          const counts = connections?.()
          if (counts === undefined) return
          this.set({ state: 'idle' }, counts.idle)
          this.set({ state: 'busy' }, counts.busy)
        },
      }),
    )
    this.registry.registerMetric(
      new Gauge({
        registers: [],
        name: 'latchkey_database_waiting_requests',
        help: 'Requests that are waiting for a connection to PostgreSQL now.',
        collect() {
          this.set(connections?.().waiting ?? 0)
        },
      }),
    )
  }

  /** @param status `2xx`, `4xx` and so on, or `aborted` if the client disconnected before the end of the response */
  requestEnded(method: string, route: string, status: string, seconds: number): void {
    const key = `${method} ${route} ${status}`
    let observer = this.#observers.get(key)
    if (observer === undefined) {
      observer = this.#requests.labels({ method, route, status })
      this.#observers.set(key, observer)
    }
    observer.observe(seconds)
  }

  unavailable(): void {
    this.#unavailable.inc()
  }

  claimed(keys: ClaimResult): void {
    const counts = { one_time_key: 0, fallback: 0, rate_limited: 0, withheld: 0, none: 0 }
    for (const key of keys) {
      if (key === undefined) counts.none++
      else if (key === null) counts.withheld++
      else if (key.rateLimited) counts.rate_limited++
      else if (key.fallback) counts.fallback++
      else counts.one_time_key++
    }
    for (const outcome of CLAIM_OUTCOMES)
      if (counts[outcome] > 0) this.#claims.inc({ outcome }, counts[outcome])
  }

  uploaded({ outcomes, fallbackOutcomes, evicted, purged }: Omit<UploadResult, 'storedAs' | 'status'>): void {
    for (const outcome of outcomes.values()) this.#uploads.inc({ kind: 'one_time_key', outcome })
    for (const outcome of fallbackOutcomes.values()) this.#uploads.inc({ kind: 'fallback', outcome })
    if (evicted.length > 0) this.#evicted.inc(evicted.length)
    if (purged !== undefined) this.#purges.inc({ cause: purged })
  }

  reset(): void {
    this.#resets.inc()
  }

  conflict(): void {
    this.#conflicts.inc()
  }

  sent(messages: number, evicted: readonly Evicted[]): void {
    this.#messages.inc(messages)
    for (const { measure, messages: count } of evicted)
      this.#evictedMessages.inc({ cause: measure === 'length' ? 'bytes' : 'messages' }, count)
  }

  securityEvent(event: SecurityEvent): void {
    this.#securityEvents.inc({ event })
  }

  answerCut(cause: (typeof CUT_CAUSES)[number]): void {
    this.#answersCut.inc({ cause })
  }

  /** @param number how often the fence of this database was raised; `raisedHere`: this time by this process */
  fence({ number, raisedHere }: { readonly number: number; readonly raisedHere: boolean }): void {
    this.#fence.set(number)
    if (raisedHere) this.#fenceRaised.inc()
  }
}
