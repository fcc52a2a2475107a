/** Context of one guarded request: settings, state, memory, and the request's server and token. */
import type { KeyName } from '@latchkey/protocol'
import type { ClientEventType, EventDetails, OnEvent, ServerLevel } from '../events.ts'
import { emit } from '../emit.ts'
import type { Budget, HealCause } from '../heal/heals.ts'
import type { Freshness } from '../server/server-view.ts'
import type { StoredState } from '../store/stored-state.ts'
import type { KeyTraffic } from './key-traffic.ts'
import type { Owner } from './guarded-device.ts'
import type { HomeserverClient } from './homeserver-client.ts'
import type { UnguardedUpload } from './unguarded-uploads.ts'

/** `heal` heals drift, `report` only emits events, `off` does nothing. */
export type Mode = 'off' | 'report' | 'heal'

/** The guard's options, with defaults applied. */
export type Settings = {
  readonly mode: Mode
  readonly onEvent: OnEvent | undefined
  readonly budget: Budget
  readonly maxPublished: number
  readonly newKeysPerDay: number
  readonly sdkSlots: number
  readonly timeoutMs: number
  readonly now: () => number
}

/** In-process memory of a guard. Losing it costs an extra request, never a key. */
export class GuardMemory {
  /** Owners of tokens by `/account/whoami`, and whether the owner is the store's device. */
  readonly owners = new Map<string, Owner & { readonly isOwn: boolean }>()
  readonly levels = new Map<string, ServerLevel>()
  /** The epoch and version of the pool that was last compared with the ledger. */
  compared: string | undefined
  /** A server event that requires a pool read, even if the digests match; cleared by that read. */
  suspicion: Extract<Freshness, 'rolled_back' | 'new_epoch'> | undefined
  /** Uploads that were forwarded unguarded and are not in the ledger yet. */
  unguardedUploads: readonly UnguardedUpload[] = []
  /** Whether the last doubtful sync count was right; undefined before the first one. */
  areSyncCountsTrusted: boolean | undefined
  #readingPause = { from: 0, to: 0 }
  readonly #last = new Map<string, number>()
  readonly #running = new Map<string, Promise<unknown>>()

  /** Runs `work` once for all concurrent callers with the same `what`. */
  shared<T>(what: string, work: () => Promise<T>): Promise<T> {
    const running = this.#running.get(what)
    if (running !== undefined) return running as Promise<T>
    const started = work().finally(() => this.#running.delete(what))
    this.#running.set(what, started)
    return started
  }

  /** Suspends pool reads for `ms`. Moving the clock back ends the pause. */
  pauseReading(ms: number, now: number): void {
    this.#readingPause = { from: now, to: now + ms }
  }

  mayRead(now: number): boolean {
    return now < this.#readingPause.from || now >= this.#readingPause.to
  }

  /** True at most once in `ms` for each `what`. A clock moved back counts as elapsed time. */
  atMostEvery(ms: number, what: string, now: number): boolean {
    const last = this.#last.get(what)
    if (last !== undefined && now >= last && now - last < ms) return false
    if (this.#last.size >= MAX_REMEMBERED) this.#last.clear()
    this.#last.set(what, now)
    return true
  }
}

export const MAX_REMEMBERED = 1_000
/** Algorithms read from one answer; no client uses more. */
export const MAX_ALGORITHMS = 8
export const MINUTE_MS = 60_000
export const HOUR_MS = 3_600_000
/** Key names in one event. */
export const MAX_NAMES_IN_EVENT = 50

/** One guarded request, and everything needed to handle it. */
export type GuardContext = {
  readonly settings: Settings
  readonly state: StoredState
  readonly memory: GuardMemory
  readonly traffic: KeyTraffic
  readonly server: HomeserverClient
}

export function emitEvent<Type extends ClientEventType>(
  { settings }: Pick<GuardContext, 'settings'>,
  type: Type,
  details: EventDetails<Type>,
): void {
  emit(settings.onEvent, settings.now(), type, details)
}

/** Emits `drift`; for the same keys once an hour, because drift that may not be healed persists. */
export function emitDrift(context: GuardContext, cause: HealCause, keys: readonly KeyName[]): void {
  const { memory, settings } = context
  const names = keys.slice(0, MAX_NAMES_IN_EVENT)
  if (!memory.atMostEvery(HOUR_MS, `drift ${cause} ${names.join()}`, settings.now())) return
  emitEvent(context, 'drift', { cause, keys: names })
}
