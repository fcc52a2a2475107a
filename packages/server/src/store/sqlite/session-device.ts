/** The device behind a session. */
import { unknownToken } from '../../matrix-error.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import type { Reader } from './database.ts'

export type IdentityRow = { readonly ed25519: string | null; readonly curve25519: string | null }

export type DeviceRow = IdentityRow & {
  readonly user_num: UserRef
  readonly device_keys: string | null
  readonly identity_changed: number
  readonly day_start_ts: number
  readonly day_stored: number
  /** The last upload that was refused for a conflict (pool/conflict.ts). */
  readonly refused_materials: string | null
  readonly refused_ts: number | null
}

/**
 * Proves a session in the transaction that writes for it, so that a late request of a removed device stores nothing.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export function proveSession(db: Reader, { tokenHash, deviceRef }: Session): DeviceRow {
  const row = db.one<DeviceRow>(
    `select user_num, device_keys, ed25519, curve25519, identity_changed, day_start_ts, day_stored,
       conflicts.materials as refused_materials, conflicts.ts as refused_ts
     from access_tokens join devices using (device_num) left join conflicts using (device_num)
     where token_hash = ? and device_num = ? and removed_ts is null`,
    tokenHash,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return row
}

/** As `proveSession`, for callers that hold the core. */
export function requireDevice({ db }: Pick<Core, 'db'>, session: Session): DeviceRow {
  return proveSession(db, session)
}

export function toIdentity(row: IdentityRow): Identity {
  return {
    ...(row.ed25519 !== null && { ed25519: row.ed25519 as NonNullable<Identity['ed25519']> }),
    ...(row.curve25519 !== null && { curve25519: row.curve25519 as NonNullable<Identity['curve25519']> }),
  }
}
