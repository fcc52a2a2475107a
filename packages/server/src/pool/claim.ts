/**
 * Which key a claim gets (client-server API /keys/claim, MSC2732, MSC4225): the next one-time key, else the fallback
 * key, else none. Past the depletion budget (depletion.ts) the fallback key comes first and the others keep theirs.
 */

export type KeyKind = 'one_time_key' | 'fallback' | 'none'

export function chooseKey(
  pool: { readonly available: boolean; readonly hasFallback: boolean },
  spare: boolean,
): KeyKind {
  if (pool.hasFallback && (spare || !pool.available)) return 'fallback'
  return pool.available ? 'one_time_key' : 'none'
}
