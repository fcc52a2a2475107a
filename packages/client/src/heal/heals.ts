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
  /** Heals in 24 hours, 100 at most. Default 10. */
  readonly healsPerDay: number
  /** The pause after one heal, doubled by each further one of the day, ms. Default 1 000. */
  readonly pauseMs: number
}

export const DEFAULT_BUDGET: Budget = { healsPerDay: 10, pauseMs: 1_000 }

const DAY_MS = 86_400_000
const MAX_HEALS_KEPT = 100
const MAX_KEYS_KEPT = 20

/**
 * How long the next heal has to wait, ms: 0 when it may begin, `Infinity` when the day's budget is spent. Heals that lie
 * in the future (a clock set back) count for a day as well, but nobody waits for their pause: it would last until the
 * clock has caught up. Replacing keys whose private halves are about to be evicted is upkeep, limited by how fast keys are
 * generated: it does not count.
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

/** Notes a heal, and returns the ID that it is noted under. The latest 100 are kept, and as many of upkeep. */
export function noteHeal(transaction: Transaction, heal: HealRecord): string {
  const heals = [...transaction.all(HEALS)].sort(([a], [b]) => Number(a) - Number(b))
  const number = Number(heals.at(-1)?.[0] ?? 0) + 1
  transaction.put(HEALS, String(number), { ...heal, keys: heal.keys.slice(0, MAX_KEYS_KEPT) })
  // Each kind makes room for itself: otherwise upkeep would push out the heals that the budget counts.
  const alike = heals.filter(([, other]) => isUpkeep(other) === isUpkeep(heal))
  for (const [old] of alike.slice(0, Math.max(0, alike.length + 1 - MAX_HEALS_KEPT))) {
    transaction.delete(HEALS, old)
  }
  return String(number)
}

/** The heals that were noted, the latest first. */
export function healHistory(view: View): HealRecord[] {
  return [...view.all(HEALS)].sort(([a], [b]) => Number(b) - Number(a)).map(([, heal]) => heal)
}
