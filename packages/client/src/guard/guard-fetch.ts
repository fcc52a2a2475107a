/**
 * The guard: a fetch that protects one device's one-time keys on behalf of an SDK that is unaware of it. All other
 * traffic passes unchanged. A failure of the guard never blocks traffic and never starts an empty ledger.
 */
import type { OnEvent, ServerLevel, Verdict } from '../events.ts'
import { type Budget, DEFAULT_BUDGET, healHistory, type HealRecord, HEALS } from '../heal/heals.ts'
import { explain, type Explanation } from '../ledger/explain.ts'
import { FALLBACK_KEYS, type KeyState, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import type { Counts } from '../server/answers.ts'
import { LEDGER_HEAD } from '../ledger/ledger.ts'
import { PREKEY_SIGHTINGS } from './prekey-sightings.ts'
import { NEW_KEYS } from './new-key-budget.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import { type Store, StoreError } from '../store/store.ts'
import { type Kind, StoredState } from '../store/stored-state.ts'
import { GUARDED_DEVICE, guardedDevice } from './guarded-device.ts'
import { emitEvent, type GuardContext, GuardMemory, MINUTE_MS, type Mode, type Settings } from './context.ts'
import { type KeyTraffic, keyTrafficOf } from './key-traffic.ts'
import { HomeserverClient } from './homeserver-client.ts'
import { forwardUnguarded, recordUnguardedUploads } from './unguarded-uploads.ts'
import { guardReset } from './reset.ts'
import { SdkRequest } from './sdk-request.ts'
import { guardSync } from './sync.ts'
import { guardVerdict, reportUndecryptable } from './undecryptable.ts'
import { PENDING_WITHDRAWALS } from './pending-withdrawals.ts'
import { guardUpload } from './upload.ts'

/** Options of `guardFetch`. Only `store` is required. */
export type GuardOptions = {
  /** Where the ledger is kept: one store per device, shared by all its tabs or processes. */
  readonly store: Store
  /**
   * `heal` (default): withdraws keys, replays refused uploads, corrects counts.
   * `report`: keeps the ledger and emits events, but changes no request or answer; its own requests only read
   * (`/versions`, `/account/whoami`, the pool).
   * `off`: does nothing.
   */
  readonly mode?: Mode
  readonly onEvent?: OnEvent
  /** Heals per day, and the pause between them. */
  readonly budget?: Partial<Budget>
  /** Keys on the server above which further uploads are withheld. Default 100. */
  readonly maxPublished?: number
  /** New keys in 24 hours, regardless of the server's counts; further keys are withheld. Default 1 000. */
  readonly newKeysPerDay?: number
  /** Private halves that the SDK keeps: 5 000 (default) for vodozemac, thus matrix-js-sdk; 100 for libolm. */
  readonly sdkSlots?: number
  /** Timeout of the guard's own requests, and how long a sync waits for a heal, ms. Default 10 000. */
  readonly timeoutMs?: number
  /** The clock, ms since the epoch. Default `Date.now`. */
  readonly now?: () => number
}

/** A snapshot for a settings page or a log. */
export type GuardStatus = {
  readonly mode: Mode
  readonly userId?: string
  readonly deviceId?: string
  /** Level of the server contacted last; undefined before the first request. */
  readonly level?: ServerLevel
  /** Available keys by algorithm, as last reported by the server. */
  readonly counts: Counts
  /** Number of ledger keys by state. */
  readonly keys: Readonly<Partial<Record<KeyState, number>>>
  readonly heals: number
}

/** A fetch, with access to the guard behind it. */
export type Guard = typeof fetch & {
  /** Every ledger key that matches a public key, a key ID or a full key name. @throws {StoreError} */
  explain(keyOrId: string): Promise<Explanation[]>
  /** All recorded heals, latest first. @throws {StoreError} */
  history(): Promise<HealRecord[]>
  /**
   * Reports an undecryptable message, which the guard cannot detect itself. Returns the verdict of the ledger on the
   * message's key, and emits `undecryptable`.
   *
   * @param report the to-device event (object or JSON), the public key, or the SDK's log line containing the key
   * @throws {StoreError}
   */
  reportUndecryptable(report: unknown): Promise<Verdict>
  /** Current state, for a settings page. @throws {StoreError} */
  status(): Promise<GuardStatus>
}

/** Every kind of record in a guard's store. */
const KINDS: readonly Kind<unknown>[] = [
  ONE_TIME_KEYS,
  FALLBACK_KEYS,
  LEDGER_HEAD,
  SERVER_VIEW,
  HEALS,
  GUARDED_DEVICE,
  PREKEY_SIGHTINGS,
  NEW_KEYS,
  PENDING_WITHDRAWALS,
]

const MAX_PUBLISHED = 100
const NEW_KEYS_PER_DAY = 1_000
const VODOZEMAC_SLOTS = 5_000
const TIMEOUT_MS = 10_000

/**
 * Guards the key traffic of one device. All other traffic, and every answer that needs no change, passes unchanged: the
 * same arguments and the same `Response`, including streams and abort signals.
 *
 * The guard itself never throws: when its store fails it emits `unguarded`, and requests pass as if there were no
 * guard.
 *
 * @param fetch the fetch that the SDK would use
 * @returns a fetch for the SDK, with `explain`, `history`, `reportUndecryptable` and `status`
 * @example
 * const guard = guardFetch(fetch, {
 *   store: indexedDbStore(`latchkey:${userId}:${deviceId}`),
 *   onEvent: (event) => console.log(event.severity, event.type, event.message),
 * })
 * const client = createClient({ baseUrl, userId, deviceId, accessToken, fetchFn: guard })
 */
export function guardFetch(fetch: typeof globalThis.fetch, options: GuardOptions): Guard {
  const settings = settingsOf(options)
  const memory = new GuardMemory()
  // Browsers refuse to call their fetch as a method of another object.
  const plain: typeof fetch = (...args) => fetch(...args)
  let opening: Promise<StoredState> | undefined
  const open = (): Promise<StoredState> => {
    opening ??= StoredState.open(options.store, KINDS).catch((error: unknown) => {
      // The next request tries again: the store may have been repaired.
      opening = undefined
      throw error
    })
    return opening
  }

  const emitUnguarded = (error: unknown): void => {
    const text = error instanceof Error ? error.message : String(error)
    if (memory.atMostEvery(MINUTE_MS, `unguarded ${text}`, settings.now())) {
      emitEvent({ settings }, 'unguarded', { error: text })
    }
  }
  const trafficOf = (args: Parameters<typeof fetch>): KeyTraffic | undefined => {
    try {
      return settings.mode === 'off' ? undefined : keyTrafficOf(...args)
    } catch (error) {
      emitUnguarded(error)
      return undefined
    }
  }

  const guarded: typeof fetch = async (...args) => {
    const traffic = trafficOf(args)
    if (traffic === undefined) return fetch(...args)
    const [input, init] = args
    const request = new SdkRequest(plain, input, init)
    const openContext = async (): Promise<GuardContext> => {
      const server = new HomeserverClient(plain, traffic, settings.timeoutMs)
      return { settings, state: await open(), memory, traffic, server }
    }
    try {
      return await untilAborted(
        traffic.signal,
        openContext().then((it) => handle(it, request)),
      )
    } catch (error) {
      if (traffic.signal?.aborted === true || request.failedWith(error)) throw error
      emitUnguarded(error)
      // Another device's keys do not belong in this ledger.
      if (error instanceof StoreError && error.reason === 'foreign') return request.outcome()
      return untilAborted(
        traffic.signal,
        forwardUnguarded(memory, traffic, request, async () => recordUnguardedUploads(await openContext())),
      )
    }
  }

  return Object.assign(guarded, {
    explain: async (keyOrId: string) => {
      const state = await open()
      return explain((read) => state.read(read), keyOrId, guardVerdict)
    },
    history: async () => (await open()).read(healHistory),
    reportUndecryptable: async (report: unknown) =>
      reportUndecryptable({ settings, state: await open() }, report),
    status: async () => statusOf(settings, memory, await open()),
  })
}

function settingsOf({
  mode,
  onEvent,
  budget,
  maxPublished,
  newKeysPerDay,
  sdkSlots,
  timeoutMs,
  now,
}: GuardOptions): Settings {
  return {
    mode: mode ?? 'heal',
    onEvent,
    budget: { ...DEFAULT_BUDGET, ...budget },
    maxPublished: maxPublished ?? MAX_PUBLISHED,
    newKeysPerDay: newKeysPerDay ?? NEW_KEYS_PER_DAY,
    sdkSlots: sdkSlots ?? VODOZEMAC_SLOTS,
    timeoutMs: timeoutMs ?? TIMEOUT_MS,
    now: now ?? Date.now,
  }
}

async function handle(context: GuardContext, request: SdkRequest): Promise<Response> {
  await recordUnguardedUploads(context)
  switch (context.traffic.kind) {
    case 'upload':
      return guardUpload(context, request)
    case 'reset':
      return guardReset(context, request)
    case 'sync':
    case 'sliding_sync':
      return guardSync(context, request)
  }
}

/** Work in progress continues in the background; the SDK sees its abort at once. */
async function untilAborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  if (signal === undefined) return work
  const settled = new AbortController()
  const aborted = new Promise<never>((_resolve, reject) => {
    const abort = (): void => reject(signal.reason)
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true, signal: settled.signal })
  })
  work.catch(() => undefined)
  try {
    return await Promise.race([work, aborted])
  } finally {
    settled.abort()
  }
}

function statusOf({ mode }: Settings, memory: GuardMemory, state: StoredState): Promise<GuardStatus> {
  return state.read((view) => {
    const { userId, deviceId } = guardedDevice(view)
    const keys: Partial<Record<KeyState, number>> = {}
    for (const key of view.all(ONE_TIME_KEYS).values()) keys[key.state] = (keys[key.state] ?? 0) + 1
    const level = [...memory.levels.values()].at(-1)
    return {
      mode,
      ...(userId !== undefined && { userId }),
      ...(deviceId !== undefined && { deviceId }),
      ...(level !== undefined && { level }),
      counts: view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts ?? {},
      keys,
      heals: healHistory(view).length,
    }
  })
}
