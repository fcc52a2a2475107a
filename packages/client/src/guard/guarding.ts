/** What all parts of the guard share: its settings, and what one request is about. */
import type { ClientEventType, EventDetails, OnEvent, ServerLevel } from '../events.ts'
import { emit } from '../emit.ts'
import type { Budget } from '../heal/heals.ts'
import type { Freshness } from '../server/server-view.ts'
import type { StoredState } from '../store/stored-state.ts'
import type { KeyTraffic } from './key-traffic.ts'
import type { OwnRequests } from './own-requests.ts'

export type Mode = 'off' | 'report' | 'heal'

/** The guard's options, with defaults filled in. */
export type Settings = {
  readonly mode: Mode
  readonly onEvent: OnEvent | undefined
  readonly budget: Budget
  readonly maxPublished: number
  readonly sdkSlots: number
  readonly timeoutMs: number
  readonly now: () => number
}

/** What a guard remembers while the page or process lives. Losing it costs a request more, never a key. */
export class Memory {
  /** Tokens whose owner `/account/whoami` told. */
  readonly owners = new Map<string, { readonly userId: string; readonly deviceId: string | undefined }>()
  readonly levels = new Map<string, ServerLevel>()
  /** The epoch and version of the pool that was last held against the ledger. */
  compared: string | undefined
  /** What made a comparison necessary that has not been made yet. */
  suspicion: Freshness | undefined
  /** Where reading the pool is no use before this time. */
  compareNotBefore = 0
  readonly #last = new Map<string, number>()
  readonly #running = new Map<string, Promise<unknown>>()

  /** Runs `work` once for all who ask for the same thing at the same time. */
  shared<T>(what: string, work: () => Promise<T>): Promise<T> {
    const running = this.#running.get(what)
    if (running !== undefined) return running as Promise<T>
    const started = work().finally(() => this.#running.delete(what))
    this.#running.set(what, started)
    return started
  }

  /** True at most once in `ms` for each `what`. A clock set back counts as time that has passed. */
  atMostEvery(ms: number, what: string, now: number): boolean {
    const last = this.#last.get(what)
    if (last !== undefined && now >= last && now - last < ms) return false
    if (this.#last.size >= MAX_REMEMBERED) this.#last.clear()
    this.#last.set(what, now)
    return true
  }
}

export const MAX_REMEMBERED = 1_000
export const A_MINUTE_MS = 60_000

/** One request that is guarded: where it goes, and everything needed to look after it. */
export type Guarding = {
  readonly settings: Settings
  readonly state: StoredState
  readonly memory: Memory
  readonly traffic: KeyTraffic
  readonly server: OwnRequests
}

export function tell<Type extends ClientEventType>(
  { settings }: Pick<Guarding, 'settings'>,
  type: Type,
  details: EventDetails<Type>,
): void {
  emit(settings.onEvent, settings.now(), type, details)
}
