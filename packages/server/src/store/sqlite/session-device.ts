/** The device behind a session, read inside the transaction that writes for it. */
import { unknownToken } from '../../matrix-error.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'

export type DeviceRow = {
  readonly user_num: UserRef
  readonly device_keys: string | null
  readonly identity_changed: number
  readonly day_start_ts: number
  readonly day_stored: number
}

export type IdentityRow = { readonly ed25519: string | null; readonly curve25519: string | null }

/** The device of a session that still holds, checked inside the write: a late request of a removed device stores nothing. */
export function requireDevice(core: Core, session: Session): DeviceRow & IdentityRow {
  const row = core.db.one<DeviceRow & IdentityRow>(
    `select user_num, device_keys, ed25519, curve25519, identity_changed, day_start_ts, day_stored
     from devices join access_tokens using (device_num)
     where token_hash = ? and device_num = ? and removed_ts is null`,
    session.tokenHash,
    session.deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return row
}

export function toIdentity(row: IdentityRow): Identity {
  return {
    ...(row.ed25519 !== null && { ed25519: row.ed25519 as NonNullable<Identity['ed25519']> }),
    ...(row.curve25519 !== null && { curve25519: row.curve25519 as NonNullable<Identity['curve25519']> }),
  }
}
