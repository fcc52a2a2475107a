/**
 * Detects from an upload that the SDK's store was rolled back or replaced: other identity keys, or known IDs with other
 * keys. Runs in the same durable step as recording the upload or before it, for guarded and unguarded uploads.
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
  /** The device's previous curve25519 key, if it changed. */
  readonly former: string | undefined
  /** Keys lost by a rollback of the SDK's store that the server may still issue. */
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
  addPendingWithdrawals(transaction, reused, 'sdk_rollback')
  return { former, reused }
}

/** Records the identity keys that a device publishes. If they changed, every key published before is lost. */
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
  const detail = "the device's identity changed"
  abandonAll(transaction, now, detail)
  for (const [id, fallback] of transaction.all(FALLBACK_KEYS)) {
    if (mayStillBeUsed(fallback)) moveTo(transaction, FALLBACK_KEYS, id, 'lost', now, { detail })
  }
  // Latchkey purges the pools of a device that changes its identity.
  if (knownLevel(context) !== 'latchkey') addWithdrawAll(transaction, 'identity_changed')
  forgetCounts(transaction)
  return curve25519
}

/** The counts of the former identity do not apply to the new pool. */
function forgetCounts(transaction: Transaction): void {
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  if (view !== undefined) transaction.put(SERVER_VIEW, SERVER_VIEW_ID, { ...view, counts: {} })
}
