/**
 * Does the server offer what this device published? Held against each other whenever an answer brings news of the pool:
 *
 *     digest as expected ----------------------------------------------> keys before the last `count` were issued
 *     digest not as expected, or the server went back -> read the pool -> first time: adopt
 *                                                                      \-> keys that should not be there: withdraw them
 *
 * Keys whose upload is still without an answer may be counted in or not, and are never withdrawn.
 */
import type { Algorithm, KeyName, KeyPool } from '@latchkey/protocol'
import type { HealCause } from '../heal/heals.ts'
import { compareDigest, noteIssuedByCount } from '../ledger/compare.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo, publicKeysOf } from '../ledger/ledger.ts'
import type { Counts } from '../server/answers.ts'
import { type Freshness, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { guardedDevice } from './guarded-device.ts'
import { A_MINUTE_MS, type Guarding, tell } from './guarding.ts'
import { healOnce } from './heal-once.ts'
import { reconcile, type Reconciled } from './reconcile.ts'
import { takeBack } from './withdraw.ts'

const MAX_ALGORITHMS = 8

/**
 * Holds the digests of an answer that was just learned against the ledger; notes what has been issued. Returns whether
 * the pool has to be read.
 */
export function compareByDigest(
  transaction: Transaction,
  keyPool: KeyPool,
  counts: Counts,
  freshness: Freshness,
  now: number,
): boolean {
  if (guardedDevice(transaction).reconciledAt === undefined) return true
  if (freshness === 'went_back' || freshness === 'new_epoch') return true
  const verified = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)?.verified
  let isRight = true
  for (const [name, digest] of Object.entries(keyPool.digest).slice(0, MAX_ALGORITHMS)) {
    const algorithm = name as Algorithm
    const count = counts[algorithm] ?? 0
    const which = [{ uploading: false }, { uploading: true }].find(
      (which) => compareDigest(transaction, algorithm, count, digest, which) === 'same',
    )
    if (which === undefined) {
      isRight &&= verified?.[algorithm] === digest
      continue
    }
    noteIssuedByCount(transaction, algorithm, count, now, which)
    // The digest has them in it: they arrived, even if the answer that says so did not.
    if (which.uploading)
      for (const [id] of publicKeysOf(transaction, algorithm)) arrived(transaction, id, now)
  }
  const fallbacks = new Set([...transaction.all(FALLBACK_KEYS).values()].map(({ hash }) => hash))
  const areKnown = Object.values(keyPool.fallback)
    .slice(0, MAX_ALGORITHMS)
    .every((hash) => fallbacks.has(hash))
  return !isRight || !areKnown
}

function arrived(transaction: Transaction, id: KeyName, now: number): void {
  if (transaction.get(ONE_TIME_KEYS, id)?.state !== 'uploading') return
  moveTo(transaction, ONE_TIME_KEYS, id, 'available', now, { publishedAt: now })
}

/** Which version of the pool was compared. */
export function poolMark({ epoch, version }: KeyPool): string {
  return `${epoch}/${version}`
}

/**
 * Reads the pool and heals what should not be there. The caller holds the store's lock. Returns the counts that hold
 * afterwards; undefined when the pool could not be read.
 */
export async function readAndHeal(guarding: Guarding, freshness: Freshness): Promise<Counts | undefined> {
  const { memory, settings, state } = guarding
  const found = await readPool(guarding)
  if (found === undefined) {
    memory.compareNotBefore = settings.now() + A_MINUTE_MS
    return undefined
  }
  const { unknown, again } = found
  const wrong = [...unknown, ...again]
  let isRight = true
  if (wrong.length > 0) {
    const reason = reasonOf(found, freshness)
    const names = wrong.map(({ name }) => name)
    tell(guarding, 'drift', { reason, keys: names.slice(0, MAX_NAMES_TOLD) })
    isRight = await healOnce(guarding, reason, names, () => takeBack(guarding, 'latchkey', wrong))
    if (!isRight) {
      memory.compareNotBefore = settings.now() + Math.min(A_MINUTE_MS, settings.budget.pauseMs)
      await state.update(forgetVerified)
    }
  }
  const view = await state.read((it) => it.get(SERVER_VIEW, SERVER_VIEW_ID))
  memory.compared = isRight && view?.keyPool ? poolMark(view.keyPool) : undefined
  return view?.counts
}

/** Names in one event. */
const MAX_NAMES_TOLD = 50

/** Reads the pool and brings the ledger up to it; tells what was adopted, and of fallback keys that nobody can take back. */
export async function readPool(guarding: Guarding): Promise<Reconciled | undefined> {
  const { settings, server, state } = guarding
  const pool = await server.pool()
  if (pool === undefined) return undefined
  const found = await state.update((transaction) => reconcile(transaction, pool, settings.now()))
  if (found.adopted !== undefined && found.adopted > 0) tell(guarding, 'adopted', { count: found.adopted })
  if (found.unknownFallbacks.length > 0) {
    const details = { reason: 'fallback_unknown', keys: found.unknownFallbacks } as const
    tell(guarding, 'drift', details)
    const why =
      'no server can be asked to withdraw a fallback key, and the guard has none of its own; the SDK replaces it when it next rotates'
    tell(guarding, 'not_healed', { ...details, why })
  }
  return found
}

function reasonOf({ unknown, again }: Reconciled, freshness: Freshness): HealCause {
  if (freshness === 'went_back' || freshness === 'new_epoch') return 'server_went_back'
  return unknown.length >= again.length ? 'unknown_keys' : 'keys_again'
}

function forgetVerified(transaction: Transaction): void {
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  if (view?.verified === undefined) return
  const { verified: _wrong, ...rest } = view
  transaction.put(SERVER_VIEW, SERVER_VIEW_ID, rest)
}
