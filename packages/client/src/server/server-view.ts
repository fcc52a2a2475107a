/**
 * The server view: what this device last learned of its pools, and which answers may change it.
 *
 * Answers overtake each other: a long-poll computed before an upload can arrive after it (synapse#17491,
 * matrix-rust-sdk#4222). With Latchkey every answer carries a version; the higher one is newer. Otherwise causality
 * decides: an answer to a request that began after something was learned is newer than that. "Began after" is counted
 * in generations of the store, not in time, so it holds between tabs and when the clock is moved back.
 *
 *     same epoch, equal or higher version                    newer: apply
 *     lower version, request began before that was learned   stale: ignore
 *     lower version, request began after that was learned    the server was rolled back: apply, compare
 *     another epoch, request began after the known one       the server raised its fence: forget, compare
 *     another epoch, request began before                    undecidable: ignore, a later answer decides
 *     no version: began before the last acknowledged change  stale; otherwise newer
 *
 * Unknown is not zero: an answer without counts changes no count (matrix-spec#2251).
 */
import type { KeyPool } from '@latchkey/protocol'
import type { Kind } from '../store/stored-state.ts'
import { type Counts, MAX_ALGORITHMS } from './answers.ts'

export type ServerView = {
  readonly counts: Counts
  readonly keyPool?: KeyPool
  /** The store's generation at which this was learned: the one created by writing it. */
  readonly learnedAt: number
  /** The generation at which the last upload or reset was acknowledged. */
  readonly changedAt: number
  /** Digests confirmed by a pool read, by algorithm: for pools whose digest the ledger cannot compute. */
  readonly verified?: Readonly<Record<string, string>>
}

/** The kind of the single server view record. */
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
  /** Whether it answers an upload or a reset: computed after every change that this device had acknowledged. */
  readonly isChange: boolean
}

export type Freshness = 'newer' | 'stale' | 'rolled_back' | 'new_epoch'

/** Classifies an answer by the table above. `generation` is that of the state that contains the view. */
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
    // A server that invents new algorithms each time must not fill the store.
    counts: Object.keys(merged).length > MAX_ALGORITHMS ? { ...counts } : merged,
    ...(latest !== undefined && { keyPool: latest }),
    learnedAt: generation + 1,
    changedAt: isChange ? generation + 1 : inThisStore(view?.changedAt ?? 0, generation),
    ...(sameEpoch && view?.verified !== undefined && { verified: view.verified }),
  }
}

/**
 * When a view was learned, in this store's count of generations. Records copied to a new store, which counts from zero,
 * carry future generations: they were learned before any request of this store. Without this correction every answer
 * would be stale, forever, because stale answers are not written.
 */
function inThisStore(learnedAt: number, generation: number): number {
  // One more: learned in this very transaction.
  return learnedAt > generation + 1 ? 0 : Math.min(learnedAt, generation)
}

/** Whether the view has everything an answer says, so nothing need be written. */
export function isKnown(view: ServerView | undefined, { counts, keyPool, isChange }: Learned): boolean {
  if (view === undefined || isChange) return false
  if (keyPool !== undefined && keyPool.version !== view.keyPool?.version) return false
  return Object.entries(counts ?? {}).every(([algorithm, count]) => view.counts[algorithm] === count)
}
