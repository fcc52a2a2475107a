/**
 * Does the server offer what this device published? Held against each other whenever an answer brings news of the pool:
 *
 *     digest of the last keys of the ledger ---------------------------> the keys before them were issued
 *     any other digest, or the server went back ------> read the pool -> first time: adopt
 *                                                                      \-> keys that should not be there: withdraw them
 *
 * Keys whose upload is still without an answer may be counted in or not, and are never withdrawn.
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
 * Holds the digests of an answer that was just learned against the ledger; notes what has been issued. Returns whether
 * the pool has to be read. A server that went back, or raised its epoch, is suspect until it was: digests that agree
 * meanwhile, or a reading that fails, do not end that.
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
    // The digest has them in it: they arrived, even if the answer that says so did not.
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

/** Which version of the pool was compared. */
export function poolVersion({ epoch, version }: KeyPool): string {
  return `${epoch}/${version}`
}

/**
 * Reads the pool and heals what should not be there. The caller holds the store's lock. Returns the counts that hold
 * afterwards; undefined when the pool could not be read.
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
    const reason = reasonOf(found, suspicion)
    const names = unwanted.map(({ name }) => name)
    emitDrift(context, reason, names)
    isRight = await healOnce(context, reason, names, () => withdrawKeys(context, unwanted))
    if (!isRight) {
      memory.suspicion = suspicion
      memory.pauseReading(await untilNextHeal(context), settings.now())
    }
  }
  const view = await state.read((it) => it.get(SERVER_VIEW, SERVER_VIEW_ID))
  memory.compared = isRight && view?.keyPool ? poolVersion(view.keyPool) : undefined
  return view?.counts
}

/** When there is a use in looking again at what could not be healed: when a heal may begin, after an hour at most. */
async function untilNextHeal({ settings, state }: GuardContext): Promise<number> {
  const { mode, budget, now } = settings
  if (mode !== 'heal') return HOUR_MS
  return Math.min(HOUR_MS, await state.read((view) => waitForHeal(view, budget, now())))
}

/**
 * Reads the pool and brings the ledger up to it; tells what was adopted, and of fallback keys that nobody can take back.
 * Undefined when the server does not tell: what was suspected stays suspected.
 */
export async function readPool(context: GuardContext): Promise<Reconciled | undefined> {
  const { memory, settings, server, state } = context
  const pool = await server.pool().catch(failure)
  if (pool instanceof Error) {
    if (memory.atMostEvery(MINUTE_MS, 'not_compared', settings.now())) {
      emitEvent(context, 'not_compared', { error: pool.message })
    }
    return undefined
  }
  const found = await state.update((transaction) => reconcile(transaction, pool, settings.now()))
  memory.suspicion = undefined
  memory.compared = undefined
  if (found.adopted !== undefined && found.adopted > 0)
    emitEvent(context, 'adopted', { count: found.adopted })
  const { unknownFallbacks } = found
  if (unknownFallbacks.length > 0 && memory.atMostEvery(MINUTE_MS, 'fallback_unknown', settings.now())) {
    const details = { reason: 'fallback_unknown', keys: unknownFallbacks } as const
    emitEvent(context, 'drift', details)
    const why =
      'no server can be asked to withdraw a fallback key, and the guard has none of its own; the SDK replaces it when it next rotates'
    emitEvent(context, 'not_healed', { ...details, why })
  }
  return found
}

function failure(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function reasonOf({ unknown, spent }: Reconciled, suspicion: GuardMemory['suspicion']): HealCause {
  if (suspicion !== undefined) return 'server_went_back'
  return unknown.length >= spent.length ? 'unknown_keys' : 'keys_again'
}
