/**
 * Compares the server's pool with the ledger whenever an answer brings new information about the pool:
 *
 *     digest matches the last keys of the ledger -------> the keys before them were issued
 *     any other digest, or a server rollback -----------> read the pool -> first time: adopt
 *                                                                      \-> unwanted keys: withdraw them
 *
 * Keys whose upload has no answer yet may or may not be included, and are never withdrawn.
 */
import type { Algorithm, KeyName, KeyPool } from '@latchkey/protocol'
import { type HealCause, waitForHeal } from '../heal/heals.ts'
import { poolByDigest } from '../ledger/compare.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo, publicKeysOf } from '../ledger/ledger.ts'
import type { Counts } from '../server/answers.ts'
import { type Freshness, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { guardedDevice } from './guarded-device.ts'
import {
  emitDrift,
  emitEvent,
  type GuardContext,
  type GuardMemory,
  HOUR_MS,
  MAX_ALGORITHMS,
  MINUTE_MS,
} from './context.ts'
import { healOnce } from './heal-once.ts'
import { reconcile, type Reconciled } from './reconcile.ts'
import { withdrawKeys } from './withdraw.ts'

/**
 * Compares the digests of an applied answer with the ledger and records issued keys. Returns whether the pool must be
 * read. After a server rollback or a new epoch the pool stays suspect until it was read: matching digests and failed
 * reads do not clear the suspicion.
 */
export function compareByDigest(
  transaction: Transaction,
  memory: GuardMemory,
  keyPool: KeyPool,
  freshness: Freshness,
  now: number,
): boolean {
  if (freshness === 'rolled_back' || freshness === 'new_epoch') memory.suspicion = freshness
  if (memory.suspicion !== undefined) return true
  if (guardedDevice(transaction).reconciledAt === undefined) return true
  const verified = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)?.verified
  let isRight = true
  for (const [name, digest] of Object.entries(keyPool.digest).slice(0, MAX_ALGORITHMS)) {
    const algorithm = name as Algorithm
    const found = poolByDigest(transaction, algorithm, digest)
    if (found === undefined) {
      isRight &&= verified?.[algorithm] === digest
      continue
    }
    for (const [id] of found.before) moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt: now })
    // The digest includes them: the upload arrived, even if its answer did not.
    if (found.hasUploading)
      for (const [id] of publicKeysOf(transaction, algorithm)) markArrived(transaction, id, now)
  }
  const fallbacks = new Set([...transaction.all(FALLBACK_KEYS).values()].map(({ hash }) => hash))
  const areKnown = Object.values(keyPool.fallback)
    .slice(0, MAX_ALGORITHMS)
    .every((hash) => fallbacks.has(hash))
  return !isRight || !areKnown
}

function markArrived(transaction: Transaction, id: KeyName, now: number): void {
  if (transaction.get(ONE_TIME_KEYS, id)?.state !== 'uploading') return
  moveTo(transaction, ONE_TIME_KEYS, id, 'available', now, { publishedAt: now })
}

/** Identifies the compared version of a pool. */
export function poolVersion({ epoch, version }: KeyPool): string {
  return `${epoch}/${version}`
}

/**
 * Reads the pool and withdraws unwanted keys. The caller holds the store's lock. Returns the counts afterwards;
 * undefined when the pool could not be read.
 */
export async function readAndHeal(context: GuardContext): Promise<Counts | undefined> {
  const { memory, settings, state } = context
  const { suspicion } = memory
  const found = await readPool(context)
  if (found === undefined) {
    memory.pauseReading(MINUTE_MS, settings.now())
    return undefined
  }
  const { unknown, spent } = found
  const unwanted = [...unknown, ...spent]
  let isRight = true
  if (unwanted.length > 0) {
    const cause = causeOf(found, suspicion)
    const names = unwanted.map(({ name }) => name)
    emitDrift(context, cause, names)
    isRight = await healOnce(context, cause, names, () => withdrawKeys(context, unwanted))
    if (!isRight) {
      memory.suspicion = suspicion
      memory.pauseReading(await untilNextHeal(context), settings.now())
    }
  }
  const view = await state.read((it) => it.get(SERVER_VIEW, SERVER_VIEW_ID))
  memory.compared = isRight && view?.keyPool ? poolVersion(view.keyPool) : undefined
  return view?.counts
}

/** Time until a retry of a blocked heal is useful: when the next heal is allowed, at most an hour. */
async function untilNextHeal({ settings, state }: GuardContext): Promise<number> {
  const { mode, budget, now } = settings
  if (mode !== 'heal') return HOUR_MS
  return Math.min(HOUR_MS, await state.read((view) => waitForHeal(view, budget, now())))
}

/**
 * Reads the pool and updates the ledger from it. Emits adopted keys, and fallback keys that cannot be withdrawn.
 * Undefined when the pool cannot be read: an existing suspicion stays.
 */
export async function readPool(context: GuardContext): Promise<Reconciled | undefined> {
  const { memory, settings, server, state } = context
  const pool = await server.pool().catch(failure)
  if (pool instanceof Error) {
    if (memory.atMostEvery(MINUTE_MS, 'pool_unreadable', settings.now())) {
      emitEvent(context, 'pool_unreadable', { error: pool.message })
    }
    return undefined
  }
  const found = await state.update((transaction) => reconcile(transaction, pool, settings.now()))
  memory.suspicion = undefined
  memory.compared = undefined
  if (found.adopted !== undefined && found.adopted > 0)
    emitEvent(context, 'adopted', { count: found.adopted })
  const { unknownFallbacks } = found
  if (unknownFallbacks.length > 0 && memory.atMostEvery(MINUTE_MS, 'unknown_fallback_key', settings.now())) {
    const details = { cause: 'unknown_fallback_key', keys: unknownFallbacks } as const
    emitEvent(context, 'drift', details)
    const detail =
      'a fallback key cannot be withdrawn, and the guard cannot publish one; the SDK replaces it at its next rotation'
    emitEvent(context, 'not_healed', { ...details, detail })
  }
  return found
}

function failure(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function causeOf({ unknown, spent }: Reconciled, suspicion: GuardMemory['suspicion']): HealCause {
  if (suspicion !== undefined) return 'server_rollback'
  return unknown.length >= spent.length ? 'unknown_keys' : 'spent_keys'
}
