/**
 * The record of every heal, and the budget that it keeps to. Maintainers worry that healing hides bugs (matrix-org/
 * element-meta#2587), so each heal leaves a record that an app can show and send home; and since a heal that does not
 * help would be repeated for ever, they are limited by the day and by a growing pause between them.
 */
import type { Kind, Transaction, View } from '../store/stored-state.ts'

export const HEAL_CAUSES = [
  'unknown_keys',
  'keys_again',
  'sdk_rolled_back',
  'conflict',
  'server_went_back',
  'fallback_unknown',
  'identity_changed',
  'two_writers',
  'private_keys_evicted',
] as const
/** Why a heal was begun. `docs/reference/client-events.md` explains each. */
export type HealCause = (typeof HEAL_CAUSES)[number]

export type HealRecord = {
  /** When it began, ms. */
  readonly at: number
  readonly cause: HealCause
  /** What was done, in words: "withdrew 12 unknown keys". */
  readonly did: string
  readonly ok: boolean
  /** Names of the keys concerned, at most 20 of them. */
  readonly keys: readonly string[]
}

/** Heals by number. */
export const HEALS: Kind<HealRecord> = {
  name: 'heal',
  check: (value): value is HealRecord =>
    typeof (value as Partial<HealRecord> | null)?.at === 'number' &&
    typeof (value as Partial<HealRecord>).cause === 'string',
}

export type Budget = {
  /** Heals in 24 hours. Default 10. */
  readonly healsPerDay: number
  /** The pause after one heal, doubled by each further one of the day, ms. Default 1 000. */
  readonly pauseMs: number
}

export const DEFAULT_BUDGET: Budget = { healsPerDay: 10, pauseMs: 1_000 }

const DAY_MS = 86_400_000
const MAX_HEALS_KEPT = 100
const MAX_KEYS_KEPT = 20

/**
 * How long the next heal has to wait, ms: 0 when it may begin, `Infinity` when the day's budget is spent. Heals that
 * seem to lie in the future (a clock set back) count as of now. Replacing keys whose private halves an SDK is about to
 * evict is upkeep, limited by how fast the SDK generates: it does not count.
 */
export function waitForHeal(view: View, budget: Budget, now: number): number {
  const ages = [...view.all(HEALS).values()]
    .filter(({ cause }) => cause !== 'private_keys_evicted')
    .map(({ at }) => Math.max(0, now - at))
    .filter((age) => age < DAY_MS)
  if (ages.length >= budget.healsPerDay) return Number.POSITIVE_INFINITY
  if (ages.length === 0) return 0
  const pause = budget.pauseMs * 2 ** (ages.length - 1)
  return Math.max(0, pause - Math.min(...ages))
}

/** Notes a heal, and returns the ID that it is noted under. At most 100 are kept, the latest. */
export function noteHeal(transaction: Transaction, heal: HealRecord): string {
  const numbers = [...transaction.all(HEALS).keys()].map(Number).sort((a, b) => a - b)
  const number = (numbers.at(-1) ?? 0) + 1
  transaction.put(HEALS, String(number), { ...heal, keys: heal.keys.slice(0, MAX_KEYS_KEPT) })
  for (const old of numbers.slice(0, Math.max(0, numbers.length + 1 - MAX_HEALS_KEPT))) {
    transaction.delete(HEALS, String(old))
  }
  return String(number)
}

/** The heals that were noted, the latest first. */
export function healHistory(view: View): HealRecord[] {
  return [...view.all(HEALS)].sort(([a], [b]) => Number(b) - Number(a)).map(([, heal]) => heal)
}
