/**
 * Daily budget of new keys, independent of reported counts: a server that always reports none must fill neither its own
 * pool nor the SDK's store. When the budget is spent, further keys are withheld (upload-limit.ts), and the SDK is shown
 * a sufficient count: otherwise it would generate keys at every sync and evict its oldest private halves. The fallback
 * key serves in the meantime. The budget is stored, so it survives reloads.
 */
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { type Spent, spentToday, withRefund, withSpent } from '../heal/day-budget.ts'
import type { Counts } from '../server/answers.ts'
import type { Kind, Transaction, View } from '../store/stored-state.ts'
import { emitEvent, type GuardContext, type Settings } from './context.ts'

type NewKeys = { readonly published: Spent }

export const NEW_KEYS: Kind<NewKeys> = {
  name: 'new_keys',
  check: (value): value is NewKeys => Array.isArray((value as Partial<NewKeys> | null)?.published),
}
const NEW_KEYS_ID = 'day'
const HOUR_MS = 3_600_000

/** New keys that may still be published today. */
export function newKeysLeft(view: View, { newKeysPerDay, now }: Settings): number {
  return Math.max(0, newKeysPerDay - spentToday(published(view), now()))
}

/** Charges new keys that are about to be published. */
export function chargeNewKeys(transaction: Transaction, count: number, now: number): void {
  if (count === 0) return
  transaction.put(NEW_KEYS, NEW_KEYS_ID, { published: withSpent(published(transaction), count, now) })
}

/** Refunds keys that were withdrawn to make room for new ones. */
export function refundNewKeys(transaction: Transaction, count: number): void {
  transaction.put(NEW_KEYS, NEW_KEYS_ID, { published: withRefund(published(transaction), count) })
}

/** The counts that the SDK is shown: the true ones, or a sufficient count when it must not generate more. */
export function countsForSdk(
  context: GuardContext,
  counts: Counts | undefined,
  left: number,
): Counts | undefined {
  const { memory, settings } = context
  const { maxPublished, newKeysPerDay, now, mode } = settings
  const count = counts?.[SIGNED_CURVE25519]
  if (mode !== 'heal' || left > 0 || count === undefined || count >= maxPublished) return counts
  if (memory.atMostEvery(HOUR_MS, 'generation_limited', now())) {
    emitEvent(context, 'generation_limited', { generated: newKeysPerDay, perDay: newKeysPerDay })
  }
  return { ...counts, [SIGNED_CURVE25519]: maxPublished }
}

function published(view: View): Spent {
  return view.get(NEW_KEYS, NEW_KEYS_ID)?.published ?? []
}
