/**
 * Rotation of the fallback key, and expiry of the former one (MSC2732, MSC4081, matrix-rust-sdk#3127, #3151). An
 * account holds two: the current key and the previous one.
 *
 *     uploading --acknowledged--> available --a newer one is acknowledged--> issued --grace time--> expired
 *
 * A new key is generated when there is none, when the server says it was used or lacks it, and by age. Generating one
 * discards the previous key, so rotation waits for the previous key's grace time. Rotation for use happens at most once
 * a day: otherwise a server that always says "used" would rotate away keys in flight. Only a fallback key on the server
 * without a private half is replaced at once, because every message to it is lost.
 */
import { FALLBACK_KEYS, type KeyRecord } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { View } from '../store/stored-state.ts'
import { isAllowed } from './rate-limit.ts'
import type { PendingRequest } from './records.ts'
import { OPENED } from './records.ts'
import { type Settings, statusOf, type Step } from './step.ts'

/** The account's current fallback key: the newest. */
export function currentFallback(view: View): [string, KeyRecord] | undefined {
  let current: [string, KeyRecord] | undefined
  for (const entry of view.all(FALLBACK_KEYS)) {
    if (entry[1].key !== undefined && (current === undefined || entry[1].order > current[1].order))
      current = entry
  }
  return current
}

/** The previous fallback key, whose private half is still in the account. */
export function formerFallback(view: View): [string, KeyRecord] | undefined {
  const current = currentFallback(view)
  for (const entry of view.all(FALLBACK_KEYS)) {
    if (entry[1].key !== undefined && entry[0] !== current?.[0]) return entry
  }
  return undefined
}

/** Minimum age of a key that is rotated because it was used. */
const USED_MINIMUM_MS = 86_400_000
/** Sessions opened with fallback keys that trigger rotation: replay protection depends on remembering them all. */
export const MANY_OPENED = 5_000

export type FallbackPlan =
  | { readonly kind: 'none' }
  /** Upload the current key again: the server lacks it, or its answer never came. */
  | { readonly kind: 'republish'; readonly name: string; readonly record: KeyRecord }
  | { readonly kind: 'new'; readonly trigger: NonNullable<PendingRequest['fallbackTrigger']> }

/** The fallback key action that is due now. */
export function planFallback(view: View, settings: Settings, now: number): FallbackPlan {
  const current = currentFallback(view)
  if (current === undefined) return { kind: 'new', trigger: 'missing' }
  const [name, record] = current
  const { fallbackAction } = statusOf(view)
  if (record.state === 'uploading') return { kind: 'republish', name, record }
  if (fallbackAction === 'heal') return { kind: 'new', trigger: 'heal' }
  if (fallbackAction === 'republish' && isAllowed(statusOf(view), 'fallback', now)) {
    return { kind: 'republish', name, record }
  }
  const trigger = rotationTrigger(view, settings, now - (record.publishedAt ?? record.since))
  if (trigger === undefined || !mayRotate(view, settings, now)) return { kind: 'none' }
  return { kind: 'new', trigger }
}

function rotationTrigger(view: View, settings: Settings, age: number): 'heal' | 'used' | 'age' | undefined {
  const { fallbackAction } = statusOf(view)
  if (fallbackAction === 'fresh') return 'heal'
  const isCrowded = view.all(OPENED).size >= MANY_OPENED
  if (fallbackAction === 'used' && (age >= USED_MINIMUM_MS || isCrowded)) return 'used'
  return age >= settings.fallbackRotateAfterMs || isCrowded ? 'age' : undefined
}

/** Whether a new key can be generated without discarding a private half within its grace time. */
export function mayRotate(view: View, settings: Settings, now: number): boolean {
  const former = formerFallback(view)
  return former === undefined || isOverGrace(former[1], settings, now)
}

/** Records that a new key was acknowledged: the previous one begins its grace time. */
export function noteFallbackPublished(step: Step, name: string): void {
  moveTo(step.transaction, FALLBACK_KEYS, name, 'available', step.now, { publishedAt: step.now })
  for (const [id, record] of step.transaction.all(FALLBACK_KEYS)) {
    if (id === name || record.state !== 'available') continue
    moveTo(step.transaction, FALLBACK_KEYS, id, 'issued', step.now, { issuedAt: step.now })
  }
}

/** Expires the previous key once its grace time is over. */
export function expireFormerFallback(step: Step): void {
  const current = currentFallback(step.transaction)
  if (current?.[1].publishedAt !== undefined && current[1].publishedAt > step.now) {
    moveTo(step.transaction, FALLBACK_KEYS, current[0], current[1].state, step.now, { publishedAt: step.now })
  }
  const former = formerFallback(step.transaction)
  if (former === undefined) return
  const [id, record] = former
  if (record.issuedAt !== undefined && record.issuedAt > step.now) {
    // The clock was moved back: restart the grace time instead of keeping the key until the clock has caught up.
    moveTo(step.transaction, FALLBACK_KEYS, id, 'issued', step.now, { issuedAt: step.now })
  } else if (isOverGrace(record, step.settings, step.now)) {
    step.accountToChange().forgetPreviousFallbackKey()
    forgetFallback(step, id, 'replaced, and its grace time is over')
  }
}

/** Records that a private half was discarded, and forgets the sessions remembered only for its protection. */
export function forgetFallback(step: Step, id: string, detail: string): void {
  moveTo(step.transaction, FALLBACK_KEYS, id, 'expired', step.now, { detail })
  for (const [session, { of }] of step.transaction.all(OPENED)) {
    if (of === id) step.transaction.delete(OPENED, session)
  }
  const history = [...step.transaction.all(FALLBACK_KEYS)].filter(([, record]) => record.key === undefined)
  const surplus = Math.max(0, history.length - MAX_HISTORY)
  for (const [old] of history.sort(([, a], [, b]) => a.order - b.order).slice(0, surplus)) {
    step.transaction.delete(FALLBACK_KEYS, old)
  }
}

/** Former fallback keys kept for `explain`: one year of weekly rotations. */
const MAX_HISTORY = 52

function isOverGrace({ state, issuedAt }: KeyRecord, { fallbackGraceMs }: Settings, now: number): boolean {
  return state === 'issued' && issuedAt !== undefined && now - issuedAt >= fallbackGraceMs
}
