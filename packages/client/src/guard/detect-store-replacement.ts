/**
 * What an upload shows to be dead: other identity keys, or IDs that come anew with other keys. Part of the same durable
 * step as recording the upload or ahead of it, whether the upload is guarded or passes while the guard cannot work.
 */
import { FALLBACK_KEYS, mayStillBeUsed } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { abandonAll, abandonSince, reusedNames, type WithdrawalTarget } from './abandon-keys.ts'
import { guardedDevice, knownLevel, putGuardedDevice, recordOwner } from './guarded-device.ts'
import type { GuardContext } from './context.ts'
import type { UploadPayload } from './upload-payload.ts'
import { addPendingWithdrawals, addWithdrawAll } from './pending-withdrawals.ts'

export type StoreReplacement = {
  /** The curve25519 key that the device had before, if it has another one now. */
  readonly former: string | undefined
  /** Keys that the server may still issue although the SDK's store went back. */
  readonly reused: readonly WithdrawalTarget[]
}

export function detectStoreReplacement(
  transaction: Transaction,
  context: GuardContext,
  payload: UploadPayload,
): StoreReplacement {
  const former = noteIdentity(transaction, context, payload)
  const names = reusedNames(transaction, payload.oneTimeKeys)
  if (names.length === 0) return { former, reused: [] }
  const reused = abandonSince(transaction, names, context.settings.now())
  addPendingWithdrawals(transaction, reused, 'sdk_rolled_back')
  return { former, reused }
}

/** Takes over the identity keys that a device publishes. Others than before: whatever was published is dead. */
function noteIdentity(
  transaction: Transaction,
  context: GuardContext,
  { identity }: UploadPayload,
): string | undefined {
  if (identity === undefined) return undefined
  const now = context.settings.now()
  recordOwner(transaction, identity)
  const { curve25519, ed25519 } = guardedDevice(transaction)
  if (curve25519 === identity.curve25519 && ed25519 === identity.ed25519) return undefined
  putGuardedDevice(transaction, { curve25519: identity.curve25519, ed25519: identity.ed25519 })
  if (curve25519 === undefined) return undefined
  const cause = "the device's identity changed"
  abandonAll(transaction, now, cause)
  for (const [id, fallback] of transaction.all(FALLBACK_KEYS)) {
    if (mayStillBeUsed(fallback)) moveTo(transaction, FALLBACK_KEYS, id, 'lost', now, { cause })
  }
  // Latchkey purges the pools of a device that changes its identity.
  if (knownLevel(context) !== 'latchkey') addWithdrawAll(transaction, 'identity_changed')
  forgetCounts(transaction)
  return curve25519
}

/** The former identity's counts say nothing of this one's pool. */
function forgetCounts(transaction: Transaction): void {
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  if (view !== undefined) transaction.put(SERVER_VIEW, SERVER_VIEW_ID, { ...view, counts: {} })
}
