/**
 * When the fallback key is renewed, and when the former one's private half goes (MSC2732, MSC4081, matrix-rust-sdk#3127,
 * #3151). An account holds two: the current one, and the one before.
 *
 *     uploading --acknowledged--> available --a newer one is acknowledged--> issued --grace time--> expired
 *
 * A new one is made when there is none, when the server says that it was used or does not have it, and by age. Making one
 * loses the private half of the one before the current, so none is made while that is still within its grace time, and
 * none for having been used within a day of the one before: a server that always says "used" would otherwise rotate away
 * what is in flight. Only a dead key on the server is replaced at once, because every message to it is lost.
 */
import { FALLBACK_KEYS, type KeyRecord } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { View } from '../store/stored-state.ts'
import { isAllowed } from './rate-limit.ts'
import type { PendingRequest } from './records.ts'
import { OPENED } from './records.ts'
import { type Settings, statusOf, type Step } from './step.ts'

/** The key that the account has as its current one: the newest. */
export function currentFallback(view: View): [string, KeyRecord] | undefined {
  let current: [string, KeyRecord] | undefined
  for (const entry of view.all(FALLBACK_KEYS)) {
    if (entry[1].key !== undefined && (current === undefined || entry[1].order > current[1].order))
      current = entry
  }
  return current
}

/** The one before it, whose private half is still there. */
export function formerFallback(view: View): [string, KeyRecord] | undefined {
  const current = currentFallback(view)
  for (const entry of view.all(FALLBACK_KEYS)) {
    if (entry[1].key !== undefined && entry[0] !== current?.[0]) return entry
  }
  return undefined
}

/** The least age at which a key is renewed for having been used. */
const USED_MINIMUM_MS = 86_400_000
/** Sessions opened with fallback keys, past which the key is renewed: replays are known by what is remembered of them. */
export const MANY_OPENED = 5_000

export type FallbackPlan =
  | { readonly kind: 'none' }
  /** Offer the current key again: the server does not have it, or its answer never came. */
  | { readonly kind: 'republish'; readonly name: string; readonly record: KeyRecord }
  | { readonly kind: 'new'; readonly why: NonNullable<PendingRequest['fallbackWhy']> }

/** What is to be done about the fallback key now. */
export function planFallback(view: View, settings: Settings, now: number): FallbackPlan {
  const current = currentFallback(view)
  if (current === undefined) return { kind: 'new', why: 'missing' }
  const [name, record] = current
  const { fallbackAction } = statusOf(view)
  if (record.state === 'uploading') return { kind: 'republish', name, record }
  if (fallbackAction === 'heal') return { kind: 'new', why: 'heal' }
  if (fallbackAction === 'republish' && isAllowed(statusOf(view), 'fallback', now)) {
    return { kind: 'republish', name, record }
  }
  const why = whyRotate(view, settings, now - (record.publishedAt ?? record.since))
  if (why === undefined || !mayRotate(view, settings, now)) return { kind: 'none' }
  return { kind: 'new', why }
}

function whyRotate(view: View, settings: Settings, age: number): 'heal' | 'used' | 'age' | undefined {
  const { fallbackAction } = statusOf(view)
  if (fallbackAction === 'fresh') return 'heal'
  const isCrowded = view.all(OPENED).size >= MANY_OPENED
  if (fallbackAction === 'used' && (age >= USED_MINIMUM_MS || isCrowded)) return 'used'
  return age >= settings.fallbackRotateAfterMs || isCrowded ? 'age' : undefined
}

/** Whether making a new key would cost no private half that is still within its grace time. */
export function mayRotate(view: View, settings: Settings, now: number): boolean {
  const former = formerFallback(view)
  return former === undefined || isOverGrace(former[1], settings, now)
}

/** A new key was acknowledged: the one before it begins its grace time. */
export function noteFallbackPublished(step: Step, name: string): void {
  moveTo(step.transaction, FALLBACK_KEYS, name, 'available', step.now, { publishedAt: step.now })
  for (const [id, record] of step.transaction.all(FALLBACK_KEYS)) {
    if (id === name || record.state !== 'available') continue
    moveTo(step.transaction, FALLBACK_KEYS, id, 'issued', step.now, { issuedAt: step.now })
  }
}

/** Gives up the former key once its grace time is over. */
export function expireFormerFallback(step: Step): void {
  const current = currentFallback(step.transaction)
  if (current?.[1].publishedAt !== undefined && current[1].publishedAt > step.now) {
    moveTo(step.transaction, FALLBACK_KEYS, current[0], current[1].state, step.now, { publishedAt: step.now })
  }
  const former = formerFallback(step.transaction)
  if (former === undefined) return
  const [id, record] = former
  if (record.issuedAt !== undefined && record.issuedAt > step.now) {
    // The clock was set back: begin the grace time anew, rather than keep the key until the clock has caught up.
    moveTo(step.transaction, FALLBACK_KEYS, id, 'issued', step.now, { issuedAt: step.now })
  } else if (isOverGrace(record, step.settings, step.now)) {
    step.accountToChange().forgetPreviousFallbackKey()
    forgetFallback(step, id, 'replaced, and its grace time is over')
  }
}

/** Notes that a private half is gone, and forgets the sessions that it need not be protected from any more. */
export function forgetFallback(step: Step, id: string, cause: string): void {
  moveTo(step.transaction, FALLBACK_KEYS, id, 'expired', step.now, { cause })
  for (const [session, { of }] of step.transaction.all(OPENED)) {
    if (of === id) step.transaction.delete(OPENED, session)
  }
  const history = [...step.transaction.all(FALLBACK_KEYS)].filter(([, record]) => record.key === undefined)
  const surplus = Math.max(0, history.length - MAX_HISTORY)
  for (const [old] of history.sort(([, a], [, b]) => a.order - b.order).slice(0, surplus)) {
    step.transaction.delete(FALLBACK_KEYS, old)
  }
}

/** Former fallback keys that are remembered for `explain`: a year of weeks. */
const MAX_HISTORY = 52

function isOverGrace({ state, issuedAt }: KeyRecord, { fallbackGraceMs }: Settings, now: number): boolean {
  return state === 'issued' && issuedAt !== undefined && now - issuedAt >= fallbackGraceMs
}
