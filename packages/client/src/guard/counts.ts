/**
 * Decides which key counts to trust. A sync count can be wrong, and an SDK that receives too low a count generates new
 * keys at every sync.
 *
 *     with a digest    -> it matches the last n ledger keys -> n, regardless of the count
 *                     \-> no match, same pool as known      -> the known count
 *                     \-> no match, another pool            -> the count as received; the pool will be read
 *     without a digest -> less than half of the known count -> verify with an empty upload, whose answer is exact
 *                     \-> otherwise                         -> the count as received
 *
 * Counts are verified once a minute at most. Until the next check the last result decides: if the sync was right, sync
 * counts are trusted; if it was wrong, the known count stays.
 */
import { type Algorithm, type KeyPool, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { poolByDigest } from '../ledger/compare.ts'
import { type Counts, decodeUpload, type SyncSignals } from '../server/answers.ts'
import { classifyAnswer, learn, SERVER_VIEW, SERVER_VIEW_ID, type ServerView } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import { type GuardContext, MAX_ALGORITHMS, MINUTE_MS } from './context.ts'

/** The counts of an answer, corrected by its digests. */
export function countsByDigest(
  view: View,
  counts: Counts | undefined,
  keyPool: KeyPool | undefined,
): Counts | undefined {
  if (counts === undefined || keyPool === undefined) return counts
  const known = view.get(SERVER_VIEW, SERVER_VIEW_ID)
  const right: [string, number][] = Object.entries(counts)
    .slice(0, MAX_ALGORITHMS)
    .map(([name, count]) => {
      const unchanged = unchangedCount(known, keyPool, name)
      // The common case: nothing to compute.
      if (unchanged === count) return [name, count]
      const digest = keyPool.digest[name]
      const found = digest === undefined ? undefined : poolByDigest(view, name as Algorithm, digest)
      return [name, found?.count ?? unchanged ?? count]
    })
  return Object.fromEntries(right)
}

/** The known count of a pool that has not changed since; undefined when it has changed. */
function unchangedCount(
  known: ServerView | undefined,
  { epoch, version, digest }: KeyPool,
  algorithm: string,
): number | undefined {
  const pool = known?.keyPool
  if (known === undefined || pool?.epoch !== epoch) return undefined
  const isSame =
    pool.version === version ||
    (digest[algorithm] !== undefined && pool.digest[algorithm] === digest[algorithm])
  return isSame ? known.counts[algorithm] : undefined
}

/** Whether a sync's count is so far below the known count (zero, or less than half) that it needs verification. */
export function isDoubtful(view: View, { counts, keyPool }: SyncSignals): boolean {
  const known = view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts[SIGNED_CURVE25519] ?? 0
  const received = counts?.[SIGNED_CURVE25519]
  return keyPool === undefined && received !== undefined && known > 0 && received < known / 2
}

/** Verifies doubtful counts. Returns the counts to use; undefined: keep what was known. */
export async function verifyCounts(
  context: GuardContext,
  doubtful: Counts,
  begunAt: number,
): Promise<Counts | undefined> {
  const { memory } = context
  const asked = await askCounts(context)
  if (asked !== undefined && asked !== 'refused') {
    // Keys may have been claimed since the sync was answered.
    memory.areSyncCountsTrusted = (asked[SIGNED_CURVE25519] ?? 0) <= (doubtful[SIGNED_CURVE25519] ?? 0)
    return asked
  }
  // Trust a server that refuses the question: otherwise the device could run out of keys.
  if (asked === 'refused') memory.areSyncCountsTrusted = true
  return memory.areSyncCountsTrusted ? learnCounts(context, doubtful, undefined, begunAt) : undefined
}

/**
 * The server's exact counts, from an empty upload that changes nothing. At most once a minute.
 *
 * @returns `refused` when the server refuses the request; undefined when it did not answer or was asked recently
 */
export async function askCounts(context: GuardContext): Promise<Counts | 'refused' | undefined> {
  const { memory, server, settings, state } = context
  if (settings.mode !== 'heal') return undefined
  if (!memory.atMostEvery(MINUTE_MS, 'counts', settings.now())) return undefined
  const begunAt = await state.read((view) => view.generation)
  const { status, body } = await server.upload({}).catch(() => ({ status: 0, body: {} }))
  if (status >= 400 && status < 500 && status !== TOO_MANY) return 'refused'
  const { counts, keyPool } = decodeUpload(body)
  if (status !== 200 || counts === undefined) return undefined
  return learnCounts(context, counts, keyPool, begunAt)
}

const TOO_MANY = 429

function learnCounts(
  { state }: GuardContext,
  counts: Counts,
  keyPool: KeyPool | undefined,
  begunAt: number,
): Promise<Counts | undefined> {
  return state.update((transaction) => {
    const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    const right = countsByDigest(transaction, counts, keyPool)
    const learned = { counts: right, keyPool, begunAt, isChange: false }
    if (classifyAnswer(view, learned, transaction.generation) === 'stale') return view?.counts
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
    return right
  })
}
