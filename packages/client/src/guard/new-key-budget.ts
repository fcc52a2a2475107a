/**
 * How many new keys a device publishes in a day, whatever counts say: a server that always claims to have none must fill
 * neither its own pool nor the SDK's store. Once the day's keys are spent, more are kept from the server (upload-limit.ts), and
 * the SDK is told of enough of them, because one that is told of too few makes new ones at every sync, and forgets the
 * private halves of the oldest to make room. The fallback key serves meanwhile. Durable: it holds over reloads.
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

/** How many new keys may still be published today. */
export function newKeysLeft(view: View, { newKeysPerDay, now }: Settings): number {
  return Math.max(0, newKeysPerDay - spentToday(published(view), now()))
}

/** Notes new keys that are about to be published. */
export function chargeNewKeys(transaction: Transaction, count: number, now: number): void {
  if (count === 0) return
  transaction.put(NEW_KEYS, NEW_KEYS_ID, { published: withSpent(published(transaction), count, now) })
}

/** Notes keys that were withdrawn for new ones to take their places. */
export function refundNewKeys(transaction: Transaction, count: number): void {
  transaction.put(NEW_KEYS, NEW_KEYS_ID, { published: withRefund(published(transaction), count) })
}

/** What the SDK is told: the true counts, or enough keys when it must not make more. */
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
