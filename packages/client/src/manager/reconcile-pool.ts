/**
 * Reconciles the ledger with a pool that was read: records which keys were issued and when, and withdraws or reports
 * unwanted keys. A withdrawal covers all of them, and only if nothing has changed since the read (`if_version`).
 */
import {
  EPOCH,
  IF_GENERATION,
  IF_VERSION,
  type KeyName,
  REQUEST_ID,
  SIGNED_CURVE25519,
} from '@latchkey/protocol'
import { type HealCause, waitForHeal } from '../heal/heals.ts'
import { alignWithPool } from '../ledger/compare.ts'
import { type KeyRecord, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo, publicKeysOf, recordAdopted, recordLost } from '../ledger/ledger.ts'
import type { PoolAnswer, PoolKey, PoolOfAlgorithm } from '../server/answers.ts'
import { isAllowed } from './rate-limit.ts'
import {
  applyServerState,
  BUDGET_SPENT,
  LONG_PAUSE_MS,
  MAX_NAMED,
  noteDigest,
  postpone,
  report,
  requestReplacement,
  TOO_OFTEN,
} from './pool-check.ts'
import { ACCOUNT, ONLY, PENDING } from './records.ts'
import { dropPrivateKey, IN_DOUBT } from './slots.ts'
import { accountOf, type Step } from './step.ts'
import { RESET_PATH } from './upload.ts'
import { newRequestId } from './wire-ids.ts'

/** Requests every available key, and as many issued ones as one answer may carry. */
export const POOL_QUERY = '?limit=1000'

/** Consecutive withdrawals before everything is replaced. */
const WITHDRAWALS = 2
/** Withdrawals refused with 409, after which one is bound to the generation, which claims do not change. */
const STRICT_TRIES = 3

/** Applies the pool that was read. `begunAt`: the state's generation when the request was sent. */
export function reconcilePool(step: Step, answer: PoolAnswer, begunAt: number): void {
  const pool = answer.algorithms.get(SIGNED_CURVE25519) ?? NO_POOL
  const { epoch, version, generation } = answer
  const digest = pool.digest === undefined ? {} : { [SIGNED_CURVE25519]: pool.digest }
  const fallback = pool.fallback === undefined ? {} : { [SIGNED_CURVE25519]: pool.fallback.hash }
  const count = pool.available.length
  const cause = step.status.poolReadCause ?? 'unknown_keys'
  const freshness = applyServerState(step, {
    counts: { [SIGNED_CURVE25519]: count },
    keyPool: { epoch, version, generation, digest, fallback },
    begunAt,
    isChange: false,
  })
  // The read stays due: the next one will begin after the answer that overtook this one.
  if (freshness === 'stale') return
  step.patch({ poolReadCause: undefined })
  // Adopted keys are not compared with the pool that they were adopted from.
  const isImport = adoptImported(step, pool)
  const unwanted = [...align(step, pool, answer.nextBatch === undefined), ...surplus(step)]
  if (!isImport) recordLost(step.transaction, [...pool.available, ...pool.issued], step.now)
  if (pool.digest !== undefined && !noteDigest(step, pool.digest)) {
    step.patch({ explainedDigest: { digest: pool.digest, count } })
  }
  if (unwanted.length === 0) step.patch({ escalation: 0, postponed: undefined, reported: undefined })
  else withdraw(step, unwanted, answer, freshness === 'rolled_back' || cause === 'server_rollback')
}

const NO_POOL: PoolOfAlgorithm = { digest: undefined, available: [], issued: [], fallback: undefined }

type UnwantedKey = { readonly name: KeyName; readonly why: 'unknown' | 'spent' | 'surplus' }

function align(step: Step, pool: PoolOfAlgorithm, complete: boolean): UnwantedKey[] {
  const { transaction, now } = step
  const before = new Map(transaction.all(ONE_TIME_KEYS))
  const { unknown, spent, missing } = alignWithPool(transaction, SIGNED_CURVE25519, pool, { complete, now })
  for (const name of missing) {
    // A rolled-back server forgets which keys it issued; the private half stays until the deadline.
    const record: KeyRecord | undefined = before.get(name)
    if (record === undefined) continue
    const detail = 'no longer on the server; it may have been issued'
    transaction.put(ONE_TIME_KEYS, name, { ...record, state: 'issued', since: now, issuedAt: now, detail })
  }
  if (complete) resolveDoubt(step, pool)
  return [
    ...unknown.map((name) => ({ name, why: 'unknown' as const })),
    ...spent.map((name) => ({ name, why: 'spent' as const })),
  ]
}

/** Drops keys whose upload was refused and that the server neither has nor issued: they never arrived. */
function resolveDoubt(step: Step, pool: PoolOfAlgorithm): void {
  const arrived = new Set([...pool.available, ...pool.issued].map(({ hash }) => hash))
  for (const [id, { state, detail, hash }] of step.transaction.all(ONE_TIME_KEYS)) {
    if (state === 'issued' && detail === IN_DOUBT && !arrived.has(hash))
      dropPrivateKey(step, id, 'unsent', 'its upload was refused')
  }
}

/** Keys beyond the account's slots: the oldest are withdrawn before they are issued. */
function surplus({ transaction }: Step): UnwantedKey[] {
  const available = publicKeysOf(transaction, SIGNED_CURVE25519).filter(
    ([, { state }]) => state === 'available',
  )
  const count = Math.max(0, available.length - accountOf(transaction).slots)
  return available.slice(0, count).map(([name]) => ({ name, why: 'surplus' }))
}

/**
 * Adopts the pool on first use of an imported account: available and issued keys are recorded as they are, and trusted.
 *
 * @returns whether the account was a new import
 */
function adoptImported(step: Step, pool: PoolOfAlgorithm): boolean {
  const { transaction, now } = step
  const { imported, ...account } = accountOf(transaction)
  if (imported === undefined) return false
  transaction.put(ACCOUNT, ONLY, account)
  const known = transaction.all(ONE_TIME_KEYS)
  const isNew = ({ name }: PoolKey): boolean => !known.has(name)
  const available = pool.available.filter(isNew)
  // Latest first: older keys have left the account, which holds only as many as it has slots.
  const issued = pool.issued
    .filter(isNew)
    .slice(0, Math.max(0, account.slots - available.length))
    .toReversed()
  const found = [...issued, ...available].map(({ name, hash, ts }) => ({ name, hash, uploadedTs: ts }))
  if (found.length === 0) return true
  recordAdopted(transaction, found, now)
  for (const { name, ts } of issued) {
    moveTo(transaction, ONE_TIME_KEYS, name, 'issued', now, { issuedAt: ts > 0 ? Math.min(ts, now) : now })
  }
  step.emit('adopted', { count: found.length })
  return true
}

function causeOf(unwanted: readonly UnwantedKey[], isRollback: boolean): HealCause {
  if (unwanted.some(({ why }) => why === 'unknown')) return 'unknown_keys'
  if (unwanted.every(({ why }) => why === 'surplus')) return 'private_keys_evicted'
  return isRollback ? 'server_rollback' : 'spent_keys'
}

function withdraw(
  step: Step,
  unwanted: readonly UnwantedKey[],
  answer: PoolAnswer,
  isRollback: boolean,
): void {
  const { transaction, settings, now, status } = step
  const keys = unwanted.slice(0, MAX_NAMED).map(({ name }) => name)
  const cause = causeOf(unwanted, isRollback)
  if (settings.mode !== 'heal') return report(step, cause, keys, `mode is "${settings.mode}"`)
  if (transaction.get(PENDING, 'heal') !== undefined) return
  if (status.escalation >= WITHDRAWALS + STRICT_TRIES) return requestReplacement(step, cause)
  if (!isAllowed(status, 'keys_reset', now)) return postpone(step, cause, keys, LONG_PAUSE_MS, TOO_OFTEN)
  const wait = waitForHeal(transaction, settings.budget, now)
  if (wait === Number.POSITIVE_INFINITY) return postpone(step, cause, keys, wait, BUDGET_SPENT)
  if (wait > 0) return postpone(step, cause, keys, wait)
  step.emit('drift', { cause, keys })
  const id = newRequestId(settings.random)
  const strict = status.escalation < STRICT_TRIES
  transaction.put(PENDING, 'heal', {
    id,
    type: 'keys_reset',
    path: RESET_PATH,
    body: JSON.stringify({
      key_ids: keys,
      [REQUEST_ID]: id,
      [EPOCH]: answer.epoch,
      ...(strict ? { [IF_VERSION]: answer.version } : { [IF_GENERATION]: answer.generation }),
    }),
    epoch: answer.epoch,
    oneTimeKeys: [],
    hasDeviceKeys: false,
    heal: { cause, kind: 'withdraw', keys },
  })
  step.patch({ escalation: status.escalation + 1 })
}
