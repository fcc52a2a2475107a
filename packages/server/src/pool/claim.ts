/**
 * Which key a claim gets (client-server API /keys/claim, MSC2732, MSC4225): the next one-time key, else the fallback
 * key, else none. A claimer over its depletion budget (depletion.ts) gets the fallback key first, so that the one-time
 * keys are left for others; where there is no fallback key, the claimer receives a one-time key.
 *
 * The order of one-time keys is the store's SQL, because claims are the hot path: sqlite/pool-state.ts `readAhead` and
 * postgres/claim-keys.ts `takeKeysSql`, by `PoolPolicy.claimOrder` (key-pool.md "Order").
 */

/** `rate_limited`: the fallback key, although one-time keys are left. */
export type KeyKind = 'one_time_key' | 'fallback' | 'rate_limited' | 'none'

/** @param takesBudget asked only where a one-time key is about to leave; false when the claimer has no budget left. */
export function chooseKey(
  pool: { readonly available: boolean; readonly hasFallback: boolean },
  takesBudget: () => boolean,
): KeyKind {
  if (!pool.available) return pool.hasFallback ? 'fallback' : 'none'
  return takesBudget() || !pool.hasFallback ? 'one_time_key' : 'rate_limited'
}
