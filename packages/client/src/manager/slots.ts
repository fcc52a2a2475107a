/**
 * The private halves in the account, and when one is dropped: the server reported it withdrawn or never stored, a
 * message was decrypted with it, its deadline passed, or it was issued long ago and its slot is needed. A key that the
 * server may still issue is never dropped (MSC4162 "secondary motivation", hydrogen#185).
 */
import { type KeyName, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { type KeyRecord, mayStillBeUsed, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { View } from '../store/stored-state.ts'
import { ACCOUNT, ONLY } from './records.ts'
import { accountOf, statusOf, type Step } from './step.ts'

const DAY_MS = 86_400_000
/** How long an issued key is kept. Older to-device messages do not occur in practice. */
const ISSUED_DEADLINE_MS = 30 * DAY_MS
/** Minimum time that an issued key is kept when slots run short. */
const ISSUED_MINIMUM_MS = DAY_MS

/** Maximum advance of the wait clock between two syncs. */
const LONGEST_WAIT_MS = DAY_MS / 2
const WAIT_STEP_MS = 600_000

/**
 * Time of the wait clock, which decides how long issued keys are kept. It advances from sync to sync by at most half a
 * day, so that neither a wrong system clock nor the server's can expire every key in flight. A device that is rarely
 * online waits longer.
 */
export function waitClockTime(view: View): number {
  return statusOf(view).waitClock?.time ?? 0
}

function advanceWaitClock(step: Step): number {
  const { now, status } = step
  const { at, time } = status.waitClock ?? { at: now, time: 0 }
  const elapsed = now - at
  // Not at every sync, because each advance is written to the store.
  if (status.waitClock === undefined || elapsed < 0 || elapsed >= WAIT_STEP_MS) {
    const next = time + Math.min(LONGEST_WAIT_MS, Math.max(0, elapsed))
    step.patch({ waitClock: { at: now, time: next } })
  }
  return waitClockTime(step.transaction)
}

/** Private one-time keys in the account, as far as known. */
export function heldKeys(view: View): number {
  let held = view.get(ACCOUNT, ONLY)?.imported?.held ?? 0
  for (const record of view.all(ONE_TIME_KEYS).values()) if (mayStillBeUsed(record)) held++
  return held
}

/**
 * Drops the private half of a key that is no longer needed, and records why. An adopted key cannot be dropped because
 * only its hash is known: it occupies its slot until its deadline, and is counted.
 */
export function dropPrivateKey(
  step: Step,
  id: string,
  state: 'withdrawn' | 'removed' | 'unsent' | 'expired',
  detail?: string,
): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record?.key !== undefined) step.accountToChange().forgetOneTimeKey(record.key)
  else if (state !== 'expired' && record?.adopted === true) return noteIssued(step, id, detail)
  moveTo(step.transaction, ONE_TIME_KEYS, id, state, step.now, detail === undefined ? {} : { detail })
}

/** Why a key is kept although its upload was refused: a proxy may have refused it after the server stored it. */
export const IN_DOUBT = 'its upload was refused, but may have been stored'

/** A key may have been issued: its private half stays until its deadline. */
export function noteIssued(step: Step, id: string, detail?: string): void {
  moveToIssued(step, id, detail === undefined ? {} : { detail })
}

/** Infers from a count alone that a key was issued. */
export function inferIssued(step: Step, id: string): void {
  moveToIssued(step, id, { inferred: true })
}

function moveToIssued(
  step: Step,
  id: string,
  more: { readonly detail?: string; readonly inferred?: true },
): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record === undefined || !mayStillBeUsed(record) || record.state === 'issued') return
  moveTo(step.transaction, ONE_TIME_KEYS, id, 'issued', step.now, { issuedAt: step.now, ...more })
}

/** Confirms inferred issues after a reset of everything: those keys are certainly not on the server any more. */
export function confirmIssued({ transaction, now }: Step): void {
  for (const [id, { state, inferred, issuedAt = now }] of transaction.all(ONE_TIME_KEYS)) {
    if (state === 'issued' && inferred === true) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt })
    }
  }
}

/** Expires issued keys that were kept long enough. */
export function expireIssued(step: Step): void {
  const { transaction, now } = step
  const time = advanceWaitClock(step)
  for (const [id, record] of transaction.all(ONE_TIME_KEYS)) {
    if (record.state !== 'issued') continue
    if (record.noticedAt === undefined) transaction.put(ONE_TIME_KEYS, id, { ...record, noticedAt: time })
    else if (time - record.noticedAt >= ISSUED_DEADLINE_MS) {
      dropPrivateKey(step, id, 'expired', 'not used within 30 days of its issue')
    }
  }
  const account = accountOf(transaction)
  const { imported } = account
  if (imported?.available === undefined || now - imported.at < ISSUED_DEADLINE_MS) return
  // Keys of an imported account are kept longer only if they are still on the server.
  const held = Math.min(imported.held, imported.available)
  if (held < imported.held) transaction.put(ACCOUNT, ONLY, { ...account, imported: { ...imported, held } })
}

/**
 * Issued keys that may be dropped to free slots, longest-issued first. Keys only inferred as issued are excluded: a
 * server that always reports 0 makes every key look issued.
 */
export function droppable(view: View): [KeyName, KeyRecord][] {
  return longIssued(view).filter(([, { inferred, key }]) => inferred !== true && key !== undefined)
}

/** Whether keys could be dropped if they were known to be off the server. */
export function areInDoubt(view: View): boolean {
  return longIssued(view).some(([, { inferred }]) => inferred === true)
}

function longIssued(view: View): [KeyName, KeyRecord][] {
  const found: [KeyName, KeyRecord][] = []
  const time = waitClockTime(view)
  for (const [id, record] of view.all(ONE_TIME_KEYS)) {
    const { noticedAt = time } = record
    const isLong = record.state === 'issued' && time - noticedAt >= ISSUED_MINIMUM_MS
    if (isLong && id.startsWith(SIGNED_CURVE25519)) found.push([id as KeyName, record])
  }
  return found.sort(([, a], [, b]) => (a.issuedAt ?? a.since) - (b.issuedAt ?? b.since) || a.order - b.order)
}
