/**
 * Compares the server's pool with the ledger. Every answer with counts is checked; on a mismatch the pool is read, and
 * unwanted keys are withdrawn.
 *
 *     answer --digest matches the last n keys--> n are available, the ones before them were issued
 *        |  \--no such n--> read the pool
 *        \--no digest (plain MSC4162, bare): the count alone, keys leave in order--> more than we published: drift
 *
 * Heals escalate: read -> withdraw unwanted keys, if nothing changed since -> once more -> replace everything, with a
 * fresh fallback key -> report. Each heal needs budget (heal/heals.ts), none is repeated for a pool that was examined
 * already, and all requests are rate-limited regardless of the server's answers (rate-limit.ts).
 */
import { type KeyName, type KeyPool, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import { type HealCause, noteHeal, waitForHeal } from '../heal/heals.ts'
import { poolByDigest } from '../ledger/compare.ts'
import { FALLBACK_KEYS } from '../ledger/key-record.ts'
import { findByHash, publicKeysOf } from '../ledger/ledger.ts'
import {
  classifyAnswer,
  type Freshness,
  learn,
  type Learned,
  SERVER_VIEW,
  SERVER_VIEW_ID,
} from '../server/server-view.ts'
import { currentFallback } from './fallback.ts'
import { isAllowed } from './rate-limit.ts'
import { ACCOUNT, ONLY, PENDING } from './records.ts'
import { inferIssued, noteIssued } from './slots.ts'
import { accountOf, type Step } from './step.ts'

/** Pause after a heal that failed or had no budget. */
export const LONG_PAUSE_MS = 3_600_000
export const BUDGET_SPENT = 'the daily budget of heals is spent'
export const TOO_OFTEN = 'too many recent attempts; the server contradicts its own answers'
/** Key names per event or request. */
export const MAX_NAMED = 1_000

/**
 * Applies what an answer says of the pools, unless it is stale.
 *
 * @returns the classification of the answer
 */
export function applyServerState(step: Step, learned: Learned): Freshness {
  const { transaction } = step
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  const freshness = classifyAnswer(view, learned, transaction.generation)
  if (freshness === 'stale') return freshness
  const { keyPool } = learned
  transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
  if (keyPool !== undefined) noteLevel(step, 'latchkey')
  if (freshness === 'new_epoch' || freshness === 'rolled_back') {
    // Another server, or an older state of it: ask what it has of this device, including its identity.
    step.patch({ deviceKeys: 'unknown', explainedDigest: undefined, postponed: undefined, escalation: 0 })
    if (keyPool !== undefined) dropForeignUpload(step, keyPool.epoch)
    requestPoolRead(step, 'server_rollback')
  }
  if (keyPool !== undefined && step.settings.mode !== 'off') checkPool(step, keyPool)
  // On a server with digests a count without a digest decides nothing.
  else if (step.settings.mode === 'off' || step.status.level !== 'latchkey') {
    checkCount(step, learned.counts?.[SIGNED_CURVE25519])
  }
  return freshness
}

/** Records the server's level; emits `server` when it is new. */
export function noteLevel(step: Step, level: ServerLevel): void {
  if (step.status.level === level) return
  step.emit('server', { level, baseUrl: 'the homeserver' })
  step.patch({ level })
}

/** Drops an upload that was decided in another epoch. Its keys may have been stored and issued. */
function dropForeignUpload(step: Step, epoch: string): void {
  for (const slot of ['upload', 'heal'] as const) {
    const pending = step.transaction.get(PENDING, slot)
    if (pending?.epoch === undefined || pending.epoch === epoch) continue
    for (const name of pending.oneTimeKeys) {
      noteIssued(step, name, "its upload was dropped: the server's epoch changed")
    }
    step.transaction.delete(PENDING, slot)
  }
}

/** Requests a pool read, unless one is due already. */
export function requestPoolRead(step: Step, cause: HealCause): void {
  if (step.settings.mode !== 'off' && step.status.poolReadCause === undefined)
    step.patch({ poolReadCause: cause })
}

function checkPool(step: Step, keyPool: KeyPool): void {
  const digest = keyPool.digest[SIGNED_CURVE25519]
  if (digest !== undefined) {
    const { explainedDigest, postponed } = step.status
    const isExplained = noteDigest(step, digest)
    if (!isExplained && explainedDigest?.digest === digest) {
      setCount(step, explainedDigest.count)
      if (postponed !== undefined && hasElapsed(postponed, step.now)) requestPoolRead(step, 'unknown_keys')
    } else if (!isExplained) requestPoolRead(step, 'unknown_keys')
  }
  checkFallback(step, keyPool.fallback[SIGNED_CURVE25519])
}

/** Whether a wait is over. Moving the clock back ends it. */
export function hasElapsed(
  { at, waitMs }: { readonly at: number; readonly waitMs: number },
  now: number,
): boolean {
  return now < at || now - at >= waitMs
}

/**
 * Applies a digest that the ledger explains: keys leave from the front, so the pool is the last n keys, regardless of
 * the count next to it. Keys of an unanswered upload may or may not be included.
 *
 * @returns whether the ledger explains the digest
 */
export function noteDigest(step: Step, digest: string): boolean {
  const found = poolByDigest(step.transaction, SIGNED_CURVE25519, digest)
  if (found === undefined) return false
  const { count, before } = found
  for (const [name, { state }] of before) if (state !== 'uploading') noteIssued(step, name)
  const { explainedDigest } = step.status
  if (explainedDigest?.digest !== digest || explainedDigest.count !== count)
    step.patch({ explainedDigest: { digest, count } })
  if (step.status.poolReadCause === undefined) step.patch({ escalation: 0, postponed: undefined })
  setCount(step, count)
  // No key of an imported account is left in the pool.
  const { imported, ...account } = accountOf(step.transaction)
  if (imported !== undefined) step.transaction.put(ACCOUNT, ONLY, account)
  return true
}

function setCount({ transaction }: Step, count: number): void {
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  if (view === undefined || view.counts[SIGNED_CURVE25519] === count) return
  transaction.put(SERVER_VIEW, SERVER_VIEW_ID, {
    ...view,
    counts: { ...view.counts, [SIGNED_CURVE25519]: count },
  })
}

/** Checks the server's fallback key: the current one, a former one, or an unknown one. */
function checkFallback(step: Step, hash: string | undefined): void {
  const current = currentFallback(step.transaction)
  if (current === undefined || current[1].state === 'uploading') return
  if (hash === current[1].hash) {
    if (step.status.fallbackAction === 'republish') step.patch({ fallbackAction: undefined })
    return
  }
  if (step.status.fallbackAction === 'heal') return
  const known = hash === undefined ? undefined : findByHash(step.transaction, FALLBACK_KEYS, hash)
  if (hash === undefined || known?.[1].key !== undefined) step.patch({ fallbackAction: 'republish' })
  else healFallback(step, hash)
}

/** Heals a fallback key on the server whose private half is not in the account. */
function healFallback(step: Step, hash: string): void {
  const cause = 'unknown_fallback_key'
  const name = `hash ${hash}`
  if (step.settings.mode === 'report') return report(step, cause, [name as KeyName], 'mode is "report"')
  const wait = waitForHeal(step.transaction, step.settings.budget, step.now)
  if (wait === Number.POSITIVE_INFINITY) return report(step, cause, [name as KeyName], BUDGET_SPENT)
  if (wait > 0) return
  step.emit('drift', { cause, keys: [name as KeyName] })
  step.patch({ fallbackAction: 'heal' })
}

/** Records that the server accepted the fresh fallback key. */
export function noteFallbackHealed(step: Step, name: KeyName): void {
  const heal = {
    cause: 'unknown_fallback_key',
    detail: 'published a fresh fallback key',
    keys: [name],
  } as const
  noteHeal(step.transaction, { ...heal, at: step.now, ok: true })
  step.emit('healed', { cause: heal.cause, detail: heal.detail, keys: heal.keys })
}

/** Emits drift that is not healed, once until something about it changes. */
export function report(step: Step, cause: HealCause, all: readonly KeyName[], detail: string): void {
  const keys = all.slice(0, MAX_NAMED)
  const reported = `${cause} ${keys.length} ${keys.slice(0, 20).join(' ')} ${detail}`
  if (step.status.reported === reported) return
  step.patch({ reported })
  step.emit('drift', { cause, keys })
  step.emit('not_healed', { cause, detail, keys })
}

/** Without a digest only the count is known: keys leave in the order in which they were published. */
function checkCount(step: Step, count: number | undefined): void {
  // While an upload is in progress it is unknown which of its keys are counted.
  if (count === undefined || step.transaction.get(PENDING, 'upload') !== undefined) return
  const keys = publicKeysOf(step.transaction, SIGNED_CURVE25519)
  for (const [name] of keys.slice(0, Math.max(0, keys.length - count))) inferIssued(step, name)
  const surplus = count - keys.length - countImported(step, Math.max(0, count - keys.length))
  // The remedy depends on the server's level: report nothing before it is known.
  if (surplus <= 0 || step.settings.mode === 'off' || step.status.level === undefined) return
  const detail =
    step.settings.mode === 'report'
      ? 'mode is "report"'
      : `the server has ${surplus} keys that this device never published, and no way to withdraw them`
  if (step.settings.mode === 'heal' && step.status.level === 'msc4162')
    requestReplacement(step, 'unknown_keys')
  else report(step, 'unknown_keys', [], detail)
}

/** Keys unknown to the ledger belong to an imported account, if there was one; their number only decreases. */
function countImported({ transaction }: Step, unknown: number): number {
  const account = accountOf(transaction)
  const { imported, slots } = account
  if (imported === undefined) return 0
  const available = Math.min(unknown, imported.available ?? slots)
  const held = imported.available === undefined ? available : imported.held
  if (available !== imported.available) {
    transaction.put(ACCOUNT, ONLY, { ...account, imported: { ...imported, available, held } })
  }
  return available
}

/** The last escalation: replaces everything, if the budget allows it. */
export function requestReplacement(step: Step, cause: HealCause): void {
  const { transaction, settings, now, status } = step
  if (status.replaceCause !== undefined || transaction.get(PENDING, 'heal') !== undefined) return
  const wait = waitForHeal(transaction, settings.budget, now)
  if (!isAllowed(status, 'keys_reset', now)) postpone(step, cause, [], LONG_PAUSE_MS, TOO_OFTEN)
  else if (wait === 0) step.patch({ replaceCause: cause, postponed: undefined })
  else postpone(step, cause, [], wait, wait === Number.POSITIVE_INFINITY ? BUDGET_SPENT : undefined)
}

/** Postpones a heal; `why` is reported when the wait is long. */
export function postpone(
  step: Step,
  cause: HealCause,
  keys: readonly KeyName[],
  wait: number,
  detail?: string,
): void {
  step.patch({ postponed: { at: step.now, waitMs: Math.min(wait, LONG_PAUSE_MS) } })
  if (detail !== undefined) report(step, cause, keys, detail)
}
