/**
 * Heal records, and the heal budget. Healing must not hide bugs (matrix-org/element-meta#2587), so each heal leaves a
 * record that an app can show and report. A heal that does not help would repeat forever, so heals are limited per day
 * and by a growing pause.
 */
import type { Kind, Transaction, View } from '../store/stored-state.ts'

export const HEAL_CAUSES = [
  'unknown_keys',
  'spent_keys',
  'sdk_rollback',
  'conflict',
  'server_rollback',
  'unknown_fallback_key',
  'identity_changed',
  'private_keys_evicted',
] as const
/** Why a heal was started. `docs/reference/client-events.md` explains each cause. */
export type HealCause = (typeof HEAL_CAUSES)[number]

/** A recorded heal. */
export type HealRecord = {
  /** When it began, ms. */
  readonly at: number
  readonly cause: HealCause
  /** Description of the result, for example "withdrew 12 of 12 keys", or of the failure. */
  readonly detail: string
  readonly ok: boolean
  /** Names of the affected keys, at most 20. */
  readonly keys: readonly string[]
}

/** Heals by number. */
export const HEALS: Kind<HealRecord> = {
  name: 'heal',
  check: (value): value is HealRecord =>
    typeof (value as Partial<HealRecord> | null)?.at === 'number' &&
    typeof (value as Partial<HealRecord>).cause === 'string',
}

/** The budget of heals. */
export type Budget = {
  /** Heals in 24 hours, at most 100. Default 10. */
  readonly healsPerDay: number
  /** The pause after one heal, doubled by each further heal of the day, ms. Default 1 000. */
  readonly pauseMs: number
}

export const DEFAULT_BUDGET: Budget = { healsPerDay: 10, pauseMs: 1_000 }

const DAY_MS = 86_400_000
const MAX_HEALS_KEPT = 100
const MAX_KEYS_KEPT = 20

/**
 * Time until the next heal is allowed, ms: 0 when allowed now, `Infinity` when the daily budget is spent. Heals in the
 * future (a clock moved back) count for a day too, but cause no pause, which would last until the clock caught up.
 * Upkeep does not count: replacing keys whose private halves are about to be evicted is limited by the rate of key
 * generation.
 */
export function waitForHeal(view: View, budget: Budget, now: number): number {
  const ages = [...view.all(HEALS).values()]
    .filter((heal) => !isUpkeep(heal))
    .map(({ at }) => now - at)
    .filter((age) => Math.abs(age) < DAY_MS)
  if (ages.length >= Math.min(budget.healsPerDay, MAX_HEALS_KEPT)) return Number.POSITIVE_INFINITY
  const past = ages.filter((age) => age >= 0)
  if (past.length === 0) return 0
  const pause = budget.pauseMs * 2 ** (ages.length - 1)
  return Math.max(0, pause - Math.min(...past))
}

function isUpkeep({ cause }: Pick<HealRecord, 'cause'>): boolean {
  return cause === 'private_keys_evicted'
}

/** Records a heal and returns its ID. The latest 100 are kept, and as many of upkeep. */
export function noteHeal(transaction: Transaction, heal: HealRecord): string {
  const heals = [...transaction.all(HEALS)].sort(([a], [b]) => Number(a) - Number(b))
  const number = Number(heals.at(-1)?.[0] ?? 0) + 1
  transaction.put(HEALS, String(number), { ...heal, keys: heal.keys.slice(0, MAX_KEYS_KEPT) })
  // Each sort is trimmed separately: otherwise upkeep would displace the heals that the budget counts.
  const alike = heals.filter(([, other]) => isUpkeep(other) === isUpkeep(heal))
  for (const [old] of alike.slice(0, Math.max(0, alike.length + 1 - MAX_HEALS_KEPT))) {
    transaction.delete(HEALS, old)
  }
  return String(number)
}

/** All recorded heals, latest first. */
export function healHistory(view: View): HealRecord[] {
  return [...view.all(HEALS)].sort(([a], [b]) => Number(b) - Number(a)).map(([, heal]) => heal)
}
