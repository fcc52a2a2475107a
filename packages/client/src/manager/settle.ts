/**
 * Settles a pending request by its answer (extensions.md, outcomes). No answer, 429 and 5xx leave the request pending,
 * with a pause.
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
/** Answers after which a heal is given up, so that it cannot block uploads forever. */
const FINAL_FAILURES = 3
const FAILURES = 8

/** An answer; `status` is 0 when none came. */
export type Answer = {
  readonly status: number
  readonly body: JsonObject
  /** The state's generation when the request was first sent: the answer was computed after it. */
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
  // Forbidden, possibly because the server has another identity of the device: check that.
  if (answer.status === 403 || (answer.status === 400 && pending.hasDeviceKeys)) {
    step.patch({ deviceKeys: 'unknown' })
  }
  if (pending.heal !== undefined) return settleRefusedReset(step, pending, pending.heal, answer)
  if (answer.status !== 400) return false
  return settleRefusedUpload(step, pending, answer)
}

function settleUpload(step: Step, pending: PendingRequest, { body, begunAt }: Answer): void {
  const answer = decodeUpload(body)
  // The same fallback key again: without a limit, a server that always lacks one would receive it endlessly.
  if (pending.fallbackKey !== undefined && pending.fallbackTrigger === undefined)
    countAction(step, 'fallback')
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
  // Keys withdrawn by name are mostly not this device's, or were issued before: keep their private halves. In the other
  // cases a withdrawn key was never issued, and the state of the rest is unknown: it may be in flight.
  const isOurs = kind === 'replace' || cause === 'private_keys_evicted'
  if (kind === 'replace') confirmIssued(step)
  for (const name of isOurs ? keys : []) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state !== 'available') continue
    if (withdrawn.has(name)) dropPrivateKey(step, name, 'withdrawn', cause)
    else noteIssued(step, name, 'not withdrawn: it may have been issued')
  }
  settleKeys(step, pending, answer)
  const detail =
    kind === 'withdraw'
      ? `withdrew ${withdrawn.size} of ${keys.length} keys`
      : `replaced everything: ${withdrawn.size} keys withdrawn, ${pending.oneTimeKeys.length} published`
  noteHeal(step.transaction, { at: step.now, cause, detail, ok: true, keys })
  step.emit('healed', { cause, detail, keys })
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
    else if (outcome === 'in_use_elsewhere')
      noteIssued(step, name, 'the server has this key in another place, where it may be claimed')
    else if (outcome === 'already_removed')
      dropPrivateKey(step, name, 'removed', 'the server had already removed it')
    else moveTo(transaction, ONE_TIME_KEYS, name, 'available', now, { publishedAt: now })
  }
  for (const name of answer.evicted) {
    const record = transaction.get(ONE_TIME_KEYS, name)
    if (record !== undefined && isPublic(record))
      dropPrivateKey(step, name, 'removed', 'evicted: the pool was over its cap')
  }
  if (pending.fallbackKey === undefined) return
  const fallbackOutcome = answer.fallbackOutcomes.get(pending.fallbackKey)
  if (fallbackOutcome === 'already_replaced' || fallbackOutcome === 'in_use_elsewhere') {
    // The server has a newer key, or none. If that is not ours either, the digest will show it.
    noteFallbackPublished(step, pending.fallbackKey)
    step.patch({ fallbackAction: 'fresh' })
    return
  }
  const { fallbackTrigger } = pending
  noteFallbackPublished(step, pending.fallbackKey)
  if (fallbackTrigger === 'heal' && step.status.fallbackAction === 'heal') {
    noteFallbackHealed(step, pending.fallbackKey)
  }
  step.patch({ fallbackAction: undefined })
  if (fallbackTrigger !== undefined)
    step.emit('fallback_rotated', { key: pending.fallbackKey, trigger: fallbackTrigger })
}

function applyChange(step: Step, { counts, keyPool }: UploadAnswer, begunAt: number): void {
  applyServerState(step, { counts, keyPool, begunAt, isChange: true })
}

/** 409: the pool has changed since it was read. Other failures: retry a few times, then give up and report. */
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
  const detail = `the server refused the reset with ${status}`
  noteHeal(transaction, { at: now, cause, detail, ok: false, keys })
  postpone(step, cause, keys, LONG_PAUSE_MS, detail)
  if (isMissing && step.status.level === 'msc4162') step.patch({ level: 'bare' })
  return true
}

/**
 * Settles a 400: the server has another key under one of the IDs, or rejects the upload. Nothing should have been
 * stored. Compares first; if refused again, abandons the batch and replaces everything.
 */
function settleRefusedUpload(step: Step, pending: PendingRequest, { body }: Answer): boolean {
  const conflicts = decodeConflict(400, body)
  const refusals = step.status.refusals + 1
  step.patch({ refusals })
  if (conflicts === undefined && refusals < REFUSALS) return false
  if (conflicts !== undefined) step.emit('drift', { cause: 'conflict', keys: conflicts })
  if (step.settings.mode === 'heal' && refusals < REFUSALS && step.status.level === 'latchkey') {
    requestPoolRead(step, 'conflict')
    // The pool read goes first, without a pause.
    return true
  }
  if (conflicts === undefined) {
    // Keep sending the same batch, at growing intervals: a new batch would be refused too, and cost more private
    // halves.
    if (refusals > REFUSALS) return false
    const { error } = body
    const detail = typeof error === 'string' ? error : 'the server refused the upload with 400'
    step.emit('not_healed', { cause: 'conflict', detail, keys: pending.oneTimeKeys })
    return false
  }
  keepInDoubt(step, pending)
  step.transaction.delete(PENDING, 'upload')
  if (step.settings.mode === 'heal' && step.status.level !== 'bare') requestReplacement(step, 'conflict')
  else
    report(
      step,
      'conflict',
      conflicts,
      'the next keys get new IDs; the keys on the server cannot be withdrawn',
    )
  // The heal need not wait; repeated refusals do, longer each time.
  return step.status.replaceCause !== undefined || refusals === 1
}

/** Keeps keys of an abandoned upload as if in flight, until the pool shows that they never arrived, or they expire. */
function keepInDoubt(step: Step, { oneTimeKeys }: PendingRequest): void {
  for (const name of oneTimeKeys) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state === 'uploading') noteIssued(step, name, IN_DOUBT)
  }
  if (oneTimeKeys.length > 0 && step.status.level === 'latchkey') requestPoolRead(step, 'conflict')
}

/** Drops keys that were certainly not stored. A fallback key is uploaded again. */
function dropUnsent(step: Step, { oneTimeKeys }: PendingRequest): void {
  for (const name of oneTimeKeys) {
    if (step.transaction.get(ONE_TIME_KEYS, name)?.state === 'uploading')
      dropPrivateKey(step, name, 'unsent', 'its upload was refused')
  }
}
