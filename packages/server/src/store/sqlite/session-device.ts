/** Proof of a session, and the row of its device. */
import { unknownToken } from '../../matrix-error.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session } from '../../session.ts'
import { DEVICE_COUNTS, type DeviceCountsRow, USER_COUNTS, type UserCountsRow } from '../day-counts.ts'
import type { Transaction } from './database.ts'

export type IdentityRow = { readonly ed25519: string | null; readonly curve25519: string | null }

/** The row of a device, with what it and its user have used of the daily budgets. */
export type DeviceRow = IdentityRow &
  DeviceCountsRow &
  UserCountsRow & {
    readonly device_keys: string | null
    readonly identity_changed: number
    /** The last upload that was refused because of a conflict (pool/conflict.ts). */
    readonly refused_materials: string | null
    readonly refused_ts: number | null
  }

declare const proof: unique symbol
/** A session that exists in the running transaction. Only `proveSession` and `proveSender` make one. */
export type ProvedSession = Session & { readonly [proof]: true }

/**
 * Proves a session in the transaction that writes for it, so that a late request of a removed device stores nothing.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export function proveSession(
  tx: Transaction,
  session: Session,
): { readonly session: ProvedSession; readonly device: DeviceRow } {
  const device = tx.one<DeviceRow>(
    `select device_keys, ed25519, curve25519, identity_changed, ${DEVICE_COUNTS}, ${USER_COUNTS},
       conflicts.materials as refused_materials, conflicts.ts as refused_ts
     from access_tokens join devices using (device_num) join users using (user_num)
       left join conflicts using (device_num)
     where token_hash = ? and device_num = ? and removed_ts is null`,
    session.tokenHash,
    session.deviceRef,
  )
  if (device === undefined) throw unknownToken()
  return { session: session as ProvedSession, device }
}

/**
 * As `proveSession`, for a sender of to-device messages. The same statement returns when the device carried out this
 * transaction; undefined when it did not.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export function proveSender(
  tx: Transaction,
  session: Session,
  transaction: string,
): { readonly session: ProvedSession; readonly sentTs: number | undefined } {
  const row = tx.one<{ ts: number | null }>(
    `select ts from access_tokens join devices using (device_num)
       left join sent_transactions as sent on sent.device_num = devices.device_num and transaction_id = ?
     where token_hash = ? and devices.device_num = ? and removed_ts is null`,
    transaction,
    session.tokenHash,
    session.deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return { session: session as ProvedSession, sentTs: row.ts ?? undefined }
}

export function toIdentity(row: IdentityRow): Identity {
  return {
    ...(row.ed25519 !== null && { ed25519: row.ed25519 as NonNullable<Identity['ed25519']> }),
    ...(row.curve25519 !== null && { curve25519: row.curve25519 as NonNullable<Identity['curve25519']> }),
  }
}
