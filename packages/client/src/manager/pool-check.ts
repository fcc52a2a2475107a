/**
 * Does the server offer what this device can open? Every answer with counts is held against the ledger; where they do
 * not agree the pool is read, and what should not be there is withdrawn.
 *
 *     answer --digest is that of the last n keys--> n are available, the ones before them were issued
 *        |  \--no such n--> read the pool
 *        \--no digest (plain MSC4162, bare): the count alone, keys leave in order--> more than we published: drift
 *
 * The ladder of heals: read -> withdraw what is unknown, if nothing changed since -> the same once more -> replace
 * everything, with a fresh fallback key -> report. Each rung waits for the budget (heal/heals.ts), none is repeated for
 * a pool that was looked at already, and however a server answers, only so much is asked and sent (rate-limit.ts).
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

/** How long a heal is left alone whose budget is spent, or that came to nothing. */
export const LONG_PAUSE_MS = 3_600_000
export const BUDGET_SPENT = "the day's budget of heals is spent"
export const TOO_OFTEN = 'it was tried too often lately; the server does not keep to what it says'
/** Names that an event or a request carries at most. */
export const MAX_NAMED = 1_000

/**
 * Takes in what an answer says of the pools, if it is not stale.
 *
 * @returns how the answer was judged
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
    // The server is another one, or an older one: what it has of this device is to be asked for, identity included.
    step.patch({ deviceKeys: 'unknown', explainedDigest: undefined, postponed: undefined, escalation: 0 })
    if (keyPool !== undefined) dropForeignUpload(step, keyPool.epoch)
    requestPoolRead(step, 'server_went_back')
  }
  if (keyPool !== undefined && step.settings.mode !== 'off') checkPool(step, keyPool)
  // A server that has digests is not judged by a count that comes without one.
  else if (step.settings.mode === 'off' || step.status.level !== 'latchkey') {
    checkCount(step, learned.counts?.[SIGNED_CURVE25519])
  }
  return freshness
}

/** What kind of server this is. Told when it is news. */
export function noteLevel(step: Step, level: ServerLevel): void {
  if (step.status.level === level) return
  step.emit('server', { level, baseUrl: 'the homeserver' })
  step.patch({ level })
}

/** An upload that was decided in another epoch is dropped, not retried; its keys may have been stored and issued. */
function dropForeignUpload(step: Step, epoch: string): void {
  for (const slot of ['upload', 'heal'] as const) {
    const pending = step.transaction.get(PENDING, slot)
    if (pending?.epoch === undefined || pending.epoch === epoch) continue
    for (const name of pending.oneTimeKeys) {
      noteIssued(step, name, "dropped in the middle of its upload: the server's epoch changed")
    }
    step.transaction.delete(PENDING, slot)
  }
}

/** The pool is to be read, unless it is already. */
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

/** Whether something that had to wait has waited long enough. With the clock set back it has. */
export function hasElapsed(
  { at, waitMs }: { readonly at: number; readonly waitMs: number },
  now: number,
): boolean {
  return now < at || now - at >= waitMs
}

/**
 * Takes a digest that the ledger explains: keys leave from the front, so the pool is the last `n` of it, whatever a count
 * beside it says. An upload that was not answered may have arrived or not.
 *
 * @returns whether it was explained
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
  // Whatever an imported account had there is gone.
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

/** The fallback key that the server says it has: ours, a former one of ours, or one of which nothing is known. */
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

/** The server would give out a fallback key whose private half is not here. */
function healFallback(step: Step, hash: string): void {
  const reason = 'fallback_unknown'
  const name = `hash ${hash}`
  if (step.settings.mode === 'report') return report(step, reason, [name as KeyName], 'mode is "report"')
  const wait = waitForHeal(step.transaction, step.settings.budget, step.now)
  if (wait === Number.POSITIVE_INFINITY) return report(step, reason, [name as KeyName], BUDGET_SPENT)
  if (wait > 0) return
  step.emit('drift', { reason, keys: [name as KeyName] })
  step.patch({ fallbackAction: 'heal' })
}

/** The server took the fresh fallback key. */
export function noteFallbackHealed(step: Step, name: KeyName): void {
  const heal = { cause: 'fallback_unknown', did: 'published a fresh fallback key', keys: [name] } as const
  noteHeal(step.transaction, { ...heal, at: step.now, ok: true })
  step.emit('healed', { reason: heal.cause, did: heal.did, keys: heal.keys })
}

/** Tells of a drift that is not healed, once until something about it changes. */
export function report(step: Step, reason: HealCause, all: readonly KeyName[], why: string): void {
  const keys = all.slice(0, MAX_NAMED)
  const reported = `${reason} ${keys.length} ${keys.slice(0, 20).join(' ')} ${why}`
  if (step.status.reported === reported) return
  step.patch({ reported })
  step.emit('drift', { reason, keys })
  step.emit('not_healed', { reason, why, keys })
}

/** Without a digest the count is all there is: keys leave in the order in which they were published. */
function checkCount(step: Step, count: number | undefined): void {
  // While an upload is on its way it cannot be told which of the keys are counted.
  if (count === undefined || step.transaction.get(PENDING, 'upload') !== undefined) return
  const keys = publicKeysOf(step.transaction, SIGNED_CURVE25519)
  for (const [name] of keys.slice(0, Math.max(0, keys.length - count))) inferIssued(step, name)
  const surplus = count - keys.length - countImported(step, Math.max(0, count - keys.length))
  // What can be done about it depends on the server: until that is known nothing is said.
  if (surplus <= 0 || step.settings.mode === 'off' || step.status.level === undefined) return
  const why =
    step.settings.mode === 'report'
      ? 'mode is "report"'
      : `the server has ${surplus} keys that this device never published, and no way to withdraw them`
  if (step.settings.mode === 'heal' && step.status.level === 'msc4162')
    requestReplacement(step, 'unknown_keys')
  else report(step, 'unknown_keys', [], why)
}

/** Keys that no ledger knows are, in an account that was taken over, those of before: their number only falls. */
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

/** The last rung that heals: everything is replaced, when the budget allows it. */
export function requestReplacement(step: Step, cause: HealCause): void {
  const { transaction, settings, now, status } = step
  if (status.replaceCause !== undefined || transaction.get(PENDING, 'heal') !== undefined) return
  const wait = waitForHeal(transaction, settings.budget, now)
  if (!isAllowed(status, 'keys_reset', now)) postpone(step, cause, [], LONG_PAUSE_MS, TOO_OFTEN)
  else if (wait === 0) step.patch({ replaceCause: cause, postponed: undefined })
  else postpone(step, cause, [], wait, wait === Number.POSITIVE_INFINITY ? BUDGET_SPENT : undefined)
}

/** A heal has to wait: for its pause, or for so long that (`why`) it is told of. */
export function postpone(
  step: Step,
  cause: HealCause,
  keys: readonly KeyName[],
  wait: number,
  why?: string,
): void {
  step.patch({ postponed: { at: step.now, waitMs: Math.min(wait, LONG_PAUSE_MS) } })
  if (why !== undefined) report(step, cause, keys, why)
}
