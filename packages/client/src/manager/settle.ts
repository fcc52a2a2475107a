/**
 * What an answer to a pending request means for the keys in it (extensions.md, outcomes). An answer that is none, 429 or
 * 5xx leaves the request pending as it is, with a pause.
 */
import { type JsonObject, KEY_POOL } from '@latchkey/protocol'
import { noteHeal } from '../heal/heals.ts'
import { isPublic, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import {
  decodeConflict,
  decodeKeyPool,
  decodeReset,
  decodeUpload,
  isFinal,
  type UploadAnswer,
} from '../server/answers.ts'
import { noteFallbackPublished } from './fallback.ts'
import { countAction, isAllowed } from './rate-limit.ts'
import {
  applyServerState,
  LONG_PAUSE_MS,
  noteFallbackHealed,
  postpone,
  report,
  requestPoolRead,
  requestReplacement,
  TOO_OFTEN,
} from './pool-check.ts'
import { PENDING, type PendingRequest, type PendingSlot } from './records.ts'
import { noteFailure } from './retry.ts'
import { confirmIssued, dropPrivateKey, IN_DOUBT, noteIssued } from './slots.ts'
import type { Step } from './step.ts'

/** Refusals of one upload before everything is replaced. */
const REFUSALS = 2
/** Answers after which a heal is given up: it must not keep uploads waiting for ever. */
const FINAL_FAILURES = 3
const FAILURES = 8

/** An answer as it came: `status` 0 when none came. */
export type Answer = {
  readonly status: number
  readonly body: JsonObject
  /** The state's generation when the request was first handed out: what the answer tells is no older. */
  readonly begunAt: number
}

/**
 * Settles the pending request `id` by its answer; a failure delays the next try.
 *
 * @returns false when no such request is pending: another process or a duplicate answer settled it
 */
export function settlePending(
  step: Step,
  id: string,
  answer: Answer,
  retryAfterMs: number | undefined,
): boolean {
  let isFound = false
  for (const slot of ['heal', 'upload'] as const) {
    const pending = step.transaction.get(PENDING, slot)
    if (pending?.id !== id) continue
    const isSettled = settle(step, slot, pending, answer)
    noteFailure(step, isSettled ? undefined : { answer: answer.body, retryAfterMs })
    isFound = true
  }
  return isFound
}

/** Settles the request in `slot`. Returns false when the same request has to be sent again. */
function settle(step: Step, slot: PendingSlot, pending: PendingRequest, answer: Answer): boolean {
  if (answer.status >= 200 && answer.status < 300) {
    step.transaction.delete(PENDING, slot)
    if (pending.heal === undefined) settleUpload(step, pending, answer)
    else {
      countAction(step, 'keys_reset')
      settleReset(step, pending, pending.heal, answer)
    }
    return true
  }
  // Not allowed: perhaps because the server knows the device by another identity. It is to be asked.
  if (answer.status === 403 || (answer.status === 400 && pending.hasDeviceKeys)) {
    step.patch({ deviceKeys: 'unknown' })
  }
  if (pending.heal !== undefined) return settleRefusedReset(step, pending, pending.heal, answer)
  if (answer.status !== 400) return false
  return settleRefusedUpload(step, pending, answer)
}

function settleUpload(step: Step, pending: PendingRequest, { body, begunAt }: Answer): void {
  const answer = decodeUpload(body)
  // The same key again: a server that has none whatever it is given would be given it for ever.
  if (pending.fallbackKey !== undefined && pending.fallbackWhy === undefined) countAction(step, 'fallback')
  settleKeys(step, pending, answer)
  if (pending.hasDeviceKeys) step.patch({ deviceKeys: 'published' })
  step.patch({ escalation: 0, refusals: 0 })
  applyChange(step, answer, begunAt)
}

function settleReset(
  step: Step,
  pending: PendingRequest,
  { cause, kind, keys }: NonNullable<PendingRequest['heal']>,
  { body, begunAt }: Answer,
): void {
  const answer = decodeReset(body)
  const withdrawn = new Set(answer.withdrawn ?? [])
  // Mostly what is withdrawn by name was not this device's, or was issued before: no private half goes for it. Otherwise
  // what was withdrawn nobody has or will get; of the rest nothing is known, it may be in flight.
  const isOurs = kind === 'replace' || cause === 'private_keys_evicted'
  if (kind === 'replace') confirmIssued(step)
  for (const name of isOurs ? keys : []) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state !== 'available') continue
    if (withdrawn.has(name)) dropPrivateKey(step, name, 'withdrawn', cause)
    else noteIssued(step, name, 'not withdrawn: somebody may have been given it')
  }
  settleKeys(step, pending, answer)
  const did =
    kind === 'withdraw'
      ? `withdrew ${withdrawn.size} of ${keys.length} keys`
      : `replaced everything: ${withdrawn.size} keys withdrawn, ${pending.oneTimeKeys.length} published`
  noteHeal(step.transaction, { at: step.now, cause, did, ok: true, keys })
  step.emit('healed', { reason: cause, did, keys })
  step.patch({
    reported: undefined,
    ...(kind === 'replace' && { escalation: 0 }),
    ...(kind === 'replace' &&
      pending.fallbackKey === undefined &&
      cause !== 'private_keys_evicted' && { fallbackAction: 'fresh' }),
  })
  applyChange(step, answer, begunAt)
}

function settleKeys(step: Step, pending: PendingRequest, answer: UploadAnswer): void {
  const { transaction, now } = step
  for (const name of pending.oneTimeKeys) {
    const record = transaction.get(ONE_TIME_KEYS, name)
    if (record === undefined || record.state !== 'uploading') continue
    const outcome = answer.outcomes.get(name)
    if (outcome === 'already_issued') noteIssued(step, name, 'issued before its upload was acknowledged')
    else if (outcome === 'already_removed')
      dropPrivateKey(step, name, 'removed', 'the server had removed it before')
    else moveTo(transaction, ONE_TIME_KEYS, name, 'available', now, { publishedAt: now })
  }
  for (const name of answer.evicted) {
    const record = transaction.get(ONE_TIME_KEYS, name)
    if (record !== undefined && isPublic(record))
      dropPrivateKey(step, name, 'removed', 'evicted: the pool was over its cap')
  }
  if (pending.fallbackKey === undefined) return
  if (answer.fallbackOutcomes.get(pending.fallbackKey) === 'already_replaced') {
    // The server has a newer one. If that is not ours either, its digest will show it.
    noteFallbackPublished(step, pending.fallbackKey)
    step.patch({ fallbackAction: 'fresh' })
    return
  }
  const { fallbackWhy } = pending
  noteFallbackPublished(step, pending.fallbackKey)
  if (fallbackWhy === 'heal' && step.status.fallbackAction === 'heal') {
    noteFallbackHealed(step, pending.fallbackKey)
  }
  step.patch({ fallbackAction: undefined })
  if (fallbackWhy !== undefined) step.emit('fallback_rotated', { key: pending.fallbackKey, why: fallbackWhy })
}

function applyChange(step: Step, { counts, keyPool }: UploadAnswer, begunAt: number): void {
  applyServerState(step, { counts, keyPool, begunAt, isChange: true })
}

/** 409: the pool is not what it was read as. Anything else: again, a few times, and then it is given up and told of. */
function settleRefusedReset(
  step: Step,
  pending: PendingRequest,
  { cause, keys }: NonNullable<PendingRequest['heal']>,
  { status, body, begunAt }: Answer,
): boolean {
  const { transaction, now } = step
  if (status === 409) {
    countAction(step, 'keys_reset')
    dropUnsent(step, pending)
    transaction.delete(PENDING, 'heal')
    const keyPool = decodeKeyPool(body[KEY_POOL])
    if (keyPool !== undefined)
      applyServerState(step, { counts: undefined, keyPool, begunAt, isChange: false })
    if (!isAllowed(step.status, 'keys_reset', now)) postpone(step, cause, keys, LONG_PAUSE_MS, TOO_OFTEN)
    requestPoolRead(step, cause)
    return true
  }
  const isMissing = (status === 404 || status === 405) && body['errcode'] === 'M_UNRECOGNIZED'
  const failures = (pending.failures ?? 0) + 1
  const mayHelp = status !== 400 && !isMissing && failures < (isFinal(status) ? FINAL_FAILURES : FAILURES)
  // Without a network nothing else could be sent either.
  if (mayHelp || status === 0) {
    if (status !== 0) transaction.put(PENDING, 'heal', { ...pending, failures })
    return false
  }
  countAction(step, 'keys_reset')
  keepInDoubt(step, pending)
  transaction.delete(PENDING, 'heal')
  const why = `the server refused the reset with ${status}`
  noteHeal(transaction, { at: now, cause, did: why, ok: false, keys })
  postpone(step, cause, keys, LONG_PAUSE_MS, why)
  if (isMissing && step.status.level === 'msc4162') step.patch({ level: 'bare' })
  return true
}

/**
 * 400: under one of these IDs the server has another key, or it does not like the upload. Nothing of it should be stored.
 * Compare first; if it is refused again, give the batch up and replace everything.
 */
function settleRefusedUpload(step: Step, pending: PendingRequest, { body }: Answer): boolean {
  const conflicts = decodeConflict(400, body)
  const refusals = step.status.refusals + 1
  step.patch({ refusals })
  if (conflicts === undefined && refusals < REFUSALS) return false
  if (conflicts !== undefined) step.emit('drift', { reason: 'conflict', keys: conflicts })
  if (step.settings.mode === 'heal' && refusals < REFUSALS && step.status.level === 'latchkey') {
    requestPoolRead(step, 'conflict')
    // The comparison goes first, and need not wait.
    return true
  }
  if (conflicts === undefined) {
    // It stays the batch that is sent, at growing intervals: another one would fare no better, and cost its private halves.
    if (refusals > REFUSALS) return false
    const { error } = body
    const why = typeof error === 'string' ? error : 'the server refused the upload with 400'
    step.emit('not_healed', { reason: 'conflict', why, keys: pending.oneTimeKeys })
    return false
  }
  keepInDoubt(step, pending)
  step.transaction.delete(PENDING, 'upload')
  if (step.settings.mode === 'heal' && step.status.level !== 'bare') requestReplacement(step, 'conflict')
  else
    report(step, 'conflict', conflicts, 'the next keys get new IDs; those that are there cannot be withdrawn')
  // The cure need not wait. What is refused again and again does, longer each time.
  return step.status.replaceCause !== undefined || refusals === 1
}

/** Keys whose upload was given up stay, as in flight, until the pool shows that they never arrived, or their deadline. */
function keepInDoubt(step: Step, { oneTimeKeys }: PendingRequest): void {
  for (const name of oneTimeKeys) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state === 'uploading') noteIssued(step, name, IN_DOUBT)
  }
  if (oneTimeKeys.length > 0 && step.status.level === 'latchkey') requestPoolRead(step, 'conflict')
}

/** Keys that were not stored, by the word of a server that knows. A fallback key is offered again. */
function dropUnsent(step: Step, { oneTimeKeys }: PendingRequest): void {
  for (const name of oneTimeKeys) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state === 'uploading')
      dropPrivateKey(step, name, 'unsent', 'its upload was refused')
  }
}
