/** The result of `KeyManager.status`. */
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import { generatedToday } from './generation-budget.ts'
import { PENDING } from './records.ts'
import type { OutgoingRequest } from './requests.ts'
import { heldKeys } from './slots.ts'
import { accountOf, statusOf } from './step.ts'

/** A snapshot for a settings page or a log: server level, key counts, and what holds requests back. */
export type KeyManagerStatus = {
  /** Level of the server; undefined before `/versions` was answered. */
  readonly level: ServerLevel | undefined
  /** Why the account cannot be used any more. */
  readonly unusableReason: string | undefined
  /** Whether the access token was refused; open the manager again with another one. */
  readonly isTokenRefused: boolean
  /** One-time keys available on the server, as last known; undefined before the first count. */
  readonly available: number | undefined
  /** Private one-time keys in the account. */
  readonly held: number
  /** Private one-time keys that the account can hold. */
  readonly slots: number
  /** One-time keys generated in the last 24 hours. */
  readonly generatedToday: number
  /** Type of the key-changing request that awaits its answer. */
  readonly pending: OutgoingRequest['type'] | undefined
  /** How long `outgoingRequests` returns nothing because of a failure, ms. */
  readonly retryInMs: number
}

/** Builds the status from the stored state. */
export function managerStatus(view: View, now: number, isTokenRefused: boolean): KeyManagerStatus {
  const { level, unusableReason, retry, generated } = statusOf(view)
  return {
    level,
    unusableReason,
    isTokenRefused,
    available: view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts[SIGNED_CURVE25519],
    held: heldKeys(view),
    slots: accountOf(view).slots,
    generatedToday: generatedToday({ generated }, now),
    pending: (view.get(PENDING, 'heal') ?? view.get(PENDING, 'upload'))?.type,
    retryInMs: retry === undefined || now < retry.at ? 0 : Math.max(0, retry.at + retry.waitMs - now),
  }
}
