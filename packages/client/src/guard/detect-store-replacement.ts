/**
 * What an upload shows to be dead: other identity keys, or IDs that come anew with other keys. Part of the same durable
 * step as recording the upload or ahead of it, whether the upload is guarded or passes while the guard cannot work.
 */
import { FALLBACK_KEYS, mayBeNamed } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { disownAll, disownSince, reusedNames, type Target } from './abandon-keys.ts'
import { guardedDevice, knownLevel, putGuardedDevice, recordOwner } from './guarded-device.ts'
import type { Guarding } from './context.ts'
import type { Offer } from './upload-payload.ts'
import { noteAllToWithdraw, noteToWithdraw } from './pending-withdrawals.ts'

export type GivenUp = {
  /** The curve25519 key that the device had before, if it has another one now. */
  readonly former: string | undefined
  /** Keys that the server may still issue although the SDK's store went back. */
  readonly reused: readonly Target[]
}

export function giveUp(transaction: Transaction, guarding: Guarding, offer: Offer): GivenUp {
  const former = noteIdentity(transaction, guarding, offer)
  const names = reusedNames(transaction, offer.oneTimeKeys)
  if (names.length === 0) return { former, reused: [] }
  const reused = disownSince(transaction, names, guarding.settings.now())
  noteToWithdraw(transaction, reused, 'sdk_rolled_back')
  return { former, reused }
}

/** Takes over the identity keys that a device publishes. Others than before: whatever was published is dead. */
function noteIdentity(transaction: Transaction, guarding: Guarding, { identity }: Offer): string | undefined {
  if (identity === undefined) return undefined
  const now = guarding.settings.now()
  recordOwner(transaction, identity)
  const { curve25519, ed25519 } = guardedDevice(transaction)
  if (curve25519 === identity.curve25519 && ed25519 === identity.ed25519) return undefined
  putGuardedDevice(transaction, { curve25519: identity.curve25519, ed25519: identity.ed25519 })
  if (curve25519 === undefined) return undefined
  const cause = "the device's identity changed"
  disownAll(transaction, now, cause)
  for (const [id, fallback] of transaction.all(FALLBACK_KEYS)) {
    if (mayBeNamed(fallback)) moveTo(transaction, FALLBACK_KEYS, id, 'lost', now, { cause })
  }
  // Latchkey purges the pools of a device that changes its identity.
  if (knownLevel(guarding) !== 'latchkey') noteAllToWithdraw(transaction, 'identity_changed')
  forgetCounts(transaction)
  return curve25519
}

/** The former identity's counts say nothing of this one's pool. */
function forgetCounts(transaction: Transaction): void {
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  if (view !== undefined) transaction.put(SERVER_VIEW, SERVER_VIEW_ID, { ...view, counts: {} })
}
