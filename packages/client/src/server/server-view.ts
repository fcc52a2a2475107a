/**
 * What this device last learned of its pools on the server, and which answers may change that.
 *
 * Answers overtake each other: a long-poll that was computed before an upload can arrive after it (synapse#17491,
 * matrix-rust-sdk#4222). With Latchkey every answer carries a version, and the higher one is the newer. Where that does
 * not decide, causality does: an answer to a request that was begun after something had been learned is newer than it.
 * "Begun after" is counted in generations of the store, not in time, so it holds between tabs and with a clock set back.
 *
 *     epoch and version the same or higher                   newer: take it
 *     version lower, request begun before that was learned    stale: ignore its counts
 *     version lower, request begun after that was learned     the server went back (a restored backup): take it, compare
 *     another epoch, request begun after the known one        the server raised its fence: forget, compare
 *     another epoch, request begun before                     cannot be told: ignore, a later answer will tell
 *     no version: begun before the last acknowledged change   stale; otherwise newer
 *
 * Unknown is not zero: an answer without counts changes no count (matrix-spec#2251).
 */
import type { KeyPool } from '@latchkey/protocol'
import type { Kind } from '../store/stored-state.ts'
import { type Counts, MAX_ALGORITHMS } from './answers.ts'

export type ServerView = {
  readonly counts: Counts
  readonly keyPool?: KeyPool
  /** The generation of the store that this was learned at: the one its writing made. */
  readonly learnedAt: number
  /** The generation at which the last upload or reset was acknowledged. */
  readonly changedAt: number
  /** A digest that a reading of the pool found right, by algorithm: for pools whose digest the ledger cannot compute. */
  readonly verified?: Readonly<Record<string, string>>
}

/** The one record of it. */
export const SERVER_VIEW: Kind<ServerView> = {
  name: 'server',
  check: (value): value is ServerView => {
    const view = value as Partial<ServerView> | null
    return (
      typeof view?.learnedAt === 'number' &&
      typeof view.changedAt === 'number' &&
      typeof view.counts === 'object'
    )
  },
}
export const SERVER_VIEW_ID = 'view'

export type Learned = {
  readonly counts: Counts | undefined
  readonly keyPool: KeyPool | undefined
  /** The store's generation when the request was sent. */
  readonly begunAt: number
  /** The answer to an upload or a reset: it was computed after everything that this device has had acknowledged. */
  readonly isChange: boolean
}

export type Freshness = 'newer' | 'stale' | 'rolled_back' | 'new_epoch'

/** Judges an answer by the table above. `generation` is that of the state that the view stands in. */
export function classifyAnswer(
  view: ServerView | undefined,
  { keyPool, begunAt, isChange }: Learned,
  generation: number,
): Freshness {
  if (view === undefined) return 'newer'
  const known = view.keyPool
  const begunAfter = begunAt >= inThisStore(view.learnedAt, generation)
  if (keyPool === undefined || known === undefined) {
    return isChange || begunAt >= inThisStore(view.changedAt, generation) ? 'newer' : 'stale'
  }
  if (keyPool.epoch !== known.epoch) return begunAfter ? 'new_epoch' : 'stale'
  if (keyPool.version >= known.version) return 'newer'
  return begunAfter ? 'rolled_back' : 'stale'
}

/** The view after an answer that was not stale. `generation` is that of the state before it is written. */
export function learn(view: ServerView | undefined, learned: Learned, generation: number): ServerView {
  const { counts, keyPool, isChange } = learned
  const sameEpoch =
    keyPool === undefined || view?.keyPool === undefined || keyPool.epoch === view.keyPool.epoch
  const latest = keyPool ?? view?.keyPool
  const merged = { ...(sameEpoch && view?.counts), ...counts }
  return {
    // A server that names other algorithms each time is not to fill the store.
    counts: Object.keys(merged).length > MAX_ALGORITHMS ? { ...counts } : merged,
    ...(latest !== undefined && { keyPool: latest }),
    learnedAt: generation + 1,
    changedAt: isChange ? generation + 1 : inThisStore(view?.changedAt ?? 0, generation),
    ...(sameEpoch && view?.verified !== undefined && { verified: view.verified }),
  }
}

/**
 * When a view was learned, as this store counts. Records that were copied to a new store, which counts from zero, are of a
 * time to come: they were learned before anything was asked here. Otherwise every answer would be stale, and as a stale one
 * is not written, for ever.
 */
function inThisStore(learnedAt: number, generation: number): number {
  // One more is what was learned in this very transaction.
  return learnedAt > generation + 1 ? 0 : Math.min(learnedAt, generation)
}

/** Whether an answer says nothing that the view does not have: then nothing need be written. */
export function isKnown(view: ServerView | undefined, { counts, keyPool, isChange }: Learned): boolean {
  if (view === undefined || isChange) return false
  if (keyPool !== undefined && keyPool.version !== view.keyPool?.version) return false
  return Object.entries(counts ?? {}).every(([algorithm, count]) => view.counts[algorithm] === count)
}
