/**
 * Which key a claim gets (client-server API /keys/claim, MSC2732, MSC4225): the next one-time key, else the fallback
 * key, else none. A claimer over its depletion budget (depletion.ts) gets the fallback key first, so that the one-time
 * keys are left for others. Where there is no fallback key, it gets one-time keys down to a reserve (issue 11, B2):
 * several SDKs upload no fallback key, and their users could otherwise be cut off by one account.
 *
 * The order of one-time keys is the store's SQL, because claims are the hot path: sqlite/pool-state.ts `readAhead` and
 * postgres/claim-keys.ts `takeKeysSql`, by `PoolPolicy.claimOrder` (key-pool.md "Order").
 */

/**
 * `rate_limited`: the fallback key, although one-time keys are left. `withheld`: no key, although some are left.
 */
export type KeyKind = 'one_time_key' | 'fallback' | 'rate_limited' | 'withheld' | 'none'

/** Asked only where a one-time key is about to leave. */
export type ClaimBudget = {
  /** False when the claimer has used up its budget. */
  readonly takesOneTimeKey: () => boolean
  /** Asked over the budget: whether the claimer gets a key of the reserve all the same. */
  readonly takesOfReserve: () => boolean
}

export type ClaimedPool = {
  readonly available: number
  /** The available keys after the last upload. */
  readonly filled: number
  readonly hasFallback: boolean
}

export function chooseKey({ available, filled, hasFallback }: ClaimedPool, budget: ClaimBudget): KeyKind {
  if (available === 0) return hasFallback ? 'fallback' : 'none'
  if (budget.takesOneTimeKey()) return 'one_time_key'
  if (hasFallback) return 'rate_limited'
  return available > reserveOf(filled) || budget.takesOfReserve() ? 'one_time_key' : 'withheld'
}

const MIN_RESERVE = 5

/** The keys that are kept for claimers within their budgets: a fifth, at least 5. */
function reserveOf(filled: number): number {
  return Math.max(MIN_RESERVE, Math.ceil(filled / 5))
}
