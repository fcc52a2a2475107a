/**
 * The private halves in the account, and when one is given up: only when the server said that it was withdrawn or never
 * stored, when a message was decrypted with it, when its deadline passed, or when it was issued long ago and there is no
 * room left. A key that the server may still issue is never given up (MSC4162 "secondary motivation", hydrogen#185).
 */
import { type KeyName, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { type KeyRecord, mayStillBeUsed, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { View } from '../store/stored-state.ts'
import { ACCOUNT, ONLY } from './records.ts'
import { accountOf, statusOf, type Step } from './step.ts'

const DAY_MS = 86_400_000
/** How long an issued key is waited for. To-device messages older than that are of a server that is long gone. */
const ISSUED_DEADLINE_MS = 30 * DAY_MS
/** The least time that a key stays after it was issued, when room is short. */
const ISSUED_MINIMUM_MS = DAY_MS

/** What the time between two syncs counts at most. */
const LONGEST_WAIT_MS = DAY_MS / 2
const WAIT_STEP_MS = 600_000

/**
 * How long keys are waited for is told by a clock that only goes on from sync to sync, and by half a day at most: neither
 * this device's clock, wrong for a while in whatever direction, nor the server's can make every key in flight expire. A
 * device that is seldom online waits the longer.
 */
export function waitClockTime(view: View): number {
  return statusOf(view).waitClock?.time ?? 0
}

function advanceWaitClock(step: Step): number {
  const { now, status } = step
  const { at, time } = status.waitClock ?? { at: now, time: 0 }
  const elapsed = now - at
  // Not at every sync, because it is written down.
  if (status.waitClock === undefined || elapsed < 0 || elapsed >= WAIT_STEP_MS) {
    const next = time + Math.min(LONGEST_WAIT_MS, Math.max(0, elapsed))
    step.patch({ waitClock: { at: now, time: next } })
  }
  return waitClockTime(step.transaction)
}

/** How many private one-time keys are in the account, as far as it can be known. */
export function heldKeys(view: View): number {
  let held = view.get(ACCOUNT, ONLY)?.imported?.held ?? 0
  for (const record of view.all(ONE_TIME_KEYS).values()) if (mayStillBeUsed(record)) held++
  return held
}

/**
 * Gives up the private half of a key that cannot be needed any more, and notes why. An adopted key cannot be given up,
 * because only its hash is known: it takes its slot until its deadline, and so it is counted.
 */
export function dropPrivateKey(
  step: Step,
  id: string,
  state: 'withdrawn' | 'removed' | 'unsent' | 'expired',
  cause?: string,
): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record?.key !== undefined) step.accountToChange().forgetOneTimeKey(record.key)
  else if (state !== 'expired' && record?.adopted === true) return noteIssued(step, id, cause)
  moveTo(step.transaction, ONE_TIME_KEYS, id, state, step.now, cause === undefined ? {} : { cause })
}

/** Why a key is waited for although its upload was refused: who refused it may not have been the one who stores it. */
export const IN_DOUBT = 'its upload was refused; it may have arrived all the same'

/** A key may have been given to somebody: its private half stays until its deadline. */
export function noteIssued(step: Step, id: string, cause?: string): void {
  moveToIssued(step, id, cause === undefined ? {} : { cause })
}

/** A count says that a key was issued; nothing else does. */
export function inferIssued(step: Step, id: string): void {
  moveToIssued(step, id, { inferred: true })
}

function moveToIssued(
  step: Step,
  id: string,
  more: { readonly cause?: string; readonly inferred?: true },
): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record === undefined || !mayStillBeUsed(record) || record.state === 'issued') return
  moveTo(step.transaction, ONE_TIME_KEYS, id, 'issued', step.now, { issuedAt: step.now, ...more })
}

/** A reset of everything was done: what only seemed to have been issued is surely not there any more. */
export function confirmIssued({ transaction, now }: Step): void {
  for (const [id, { state, inferred, issuedAt = now }] of transaction.all(ONE_TIME_KEYS)) {
    if (state === 'issued' && inferred === true) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt })
    }
  }
}

/** Gives up issued keys that were waited for long enough. */
export function expireIssued(step: Step): void {
  const { transaction, now } = step
  const time = advanceWaitClock(step)
  for (const [id, record] of transaction.all(ONE_TIME_KEYS)) {
    if (record.state !== 'issued') continue
    if (record.noticedAt === undefined) transaction.put(ONE_TIME_KEYS, id, { ...record, noticedAt: time })
    else if (time - record.noticedAt >= ISSUED_DEADLINE_MS) {
      dropPrivateKey(step, id, 'expired', 'nobody used it within 30 days of its issue')
    }
  }
  const account = accountOf(transaction)
  const { imported } = account
  if (imported?.available === undefined || now - imported.at < ISSUED_DEADLINE_MS) return
  // Of an imported account only what the server still has is waited for any longer.
  const held = Math.min(imported.held, imported.available)
  if (held < imported.held) transaction.put(ACCOUNT, ONLY, { ...account, imported: { ...imported, held } })
}

/**
 * Issued keys that may be dropped to make room, the longest-issued first. One that only seems to have been issued may not:
 * by a server that always says 0 all keys seem to be.
 */
export function droppable(view: View): [KeyName, KeyRecord][] {
  return longIssued(view).filter(([, { inferred, key }]) => inferred !== true && key !== undefined)
}

/** Whether keys could be dropped if it were known that they are not on the server. */
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
