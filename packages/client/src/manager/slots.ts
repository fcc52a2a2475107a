/**
 * The private halves in the account, and when one is given up: only when the server said that it was withdrawn or never
 * stored, when a message was decrypted with it, when its deadline passed, or when it was issued long ago and there is no
 * room left. A key that the server may still issue is never given up (MSC4162 "secondary motivation", hydrogen#185).
 */
import { type KeyName, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { type KeyRecord, mayBeNamed, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { View } from '../store/stored-state.ts'
import type { Step } from './step.ts'

const DAY_MS = 86_400_000
/** How long an issued key is waited for. To-device messages older than that are of a server that is long gone. */
export const ISSUED_DEADLINE_MS = 30 * DAY_MS
/** The least time that a key stays after it was issued, when room is short. */
export const ISSUED_MINIMUM_MS = DAY_MS

/** How many private one-time keys the ledger knows in the account. */
export function heldKeys(view: View): number {
  let held = 0
  for (const record of view.all(ONE_TIME_KEYS).values()) if (mayBeNamed(record)) held++
  return held
}

/** Gives up the private half of a key that cannot be needed any more, and notes why. */
export function letGo(
  step: Step,
  id: string,
  state: 'withdrawn' | 'removed' | 'unsent' | 'expired',
  cause?: string,
): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record?.key !== undefined) step.accountToChange().forgetOneTimeKey(record.key)
  moveTo(step.transaction, ONE_TIME_KEYS, id, state, step.now, cause === undefined ? {} : { cause })
}

/** Why a key is waited for although its upload was refused: who refused it may not have been the one who stores it. */
export const IN_DOUBT = 'its upload was refused; it may have arrived all the same'

/** A key may have been given to somebody: its private half stays until its deadline. */
export function noteIssued(step: Step, id: string, cause?: string): void {
  const record = step.transaction.get(ONE_TIME_KEYS, id)
  if (record === undefined || !mayBeNamed(record) || record.state === 'issued') return
  moveTo(step.transaction, ONE_TIME_KEYS, id, 'issued', step.now, {
    issuedAt: step.now,
    ...(cause !== undefined && { cause }),
  })
}

/** Gives up issued keys whose deadline passed. Times that seem to lie in the future (a clock set back) begin anew. */
export function expireIssued(step: Step): void {
  for (const [id, record] of step.transaction.all(ONE_TIME_KEYS)) {
    if (record.state !== 'issued') continue
    const { issuedAt = record.since } = record
    if (issuedAt > step.now) {
      moveTo(step.transaction, ONE_TIME_KEYS, id, 'issued', step.now, { issuedAt: step.now })
    } else if (step.now - issuedAt >= ISSUED_DEADLINE_MS) {
      letGo(step, id, 'expired', 'nobody used it within 30 days of its issue')
    }
  }
}

/** Issued keys that may be dropped to make room, the longest-issued first. */
export function droppable(view: View, now: number): [KeyName, KeyRecord][] {
  const found: [KeyName, KeyRecord][] = []
  for (const [id, record] of view.all(ONE_TIME_KEYS)) {
    const { issuedAt = record.since } = record
    if (
      record.state === 'issued' &&
      id.startsWith(SIGNED_CURVE25519) &&
      now - issuedAt >= ISSUED_MINIMUM_MS
    ) {
      found.push([id as KeyName, record])
    }
  }
  return found.sort(([, a], [, b]) => (a.issuedAt ?? a.since) - (b.issuedAt ?? b.since) || a.order - b.order)
}
