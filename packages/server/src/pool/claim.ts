/**
 * Which key a claim gets (client-server API /keys/claim, MSC2732, MSC4225): the next one-time key, else the fallback
 * key, else none. Past the depletion budget (depletion.ts) the fallback key comes first and the others keep theirs;
 * where there is no fallback key, the one-time key leaves all the same.
 */

/** `spared`: the fallback key, although one-time keys are left. */
export type KeyKind = 'one_time_key' | 'fallback' | 'spared' | 'none'

/** @param takesBudget asked only where a one-time key is about to leave; false when the claimer has no budget left. */
export function chooseKey(
  pool: { readonly available: boolean; readonly hasFallback: boolean },
  takesBudget: () => boolean,
): KeyKind {
  if (!pool.available) return pool.hasFallback ? 'fallback' : 'none'
  return takesBudget() || !pool.hasFallback ? 'one_time_key' : 'spared'
}
