/**
 * The device behind a session, locked and checked inside the transaction that writes for it: a late request of a removed
 * device stores nothing. The lock comes first and the token is looked up by a later statement, whose snapshot has what
 * the lock was waited for. Tokens change only under the lock of their device.
 */
import { unknownToken } from '../../matrix-error.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session, UserRef } from '../../session.ts'
import type { Write } from './core.ts'
import type { Queries } from './database.ts'
import { freshenLocked } from './freshen.ts'
import { lockPools, type Pool } from './pool-rows.ts'

export type IdentityRow = { readonly ed25519: string | null; readonly curve25519: string | null }

export type DeviceRow = IdentityRow & {
  readonly user_num: UserRef
  readonly device_keys: string | null
  readonly identity_changed: boolean
  readonly version: number
  readonly generation: number
  readonly day_start_ts: number
  readonly day_stored: number
}

/**
 * Locks the device of a session that still holds, against all but messages to it, and its pools, which are purged if it is
 * below the fence. Who may change the user's device list locks the user before it.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function requireDevice(
  tx: Write,
  session: Session,
  now: number,
): Promise<{ readonly device: DeviceRow; readonly pools: readonly Pool[] }> {
  const device = await lockDevice(tx, session)
  if (device.fence >= tx.standing.fence) return { device, pools: await lockPools(tx, session) }
  await freshenLocked(tx, [{ device_num: session.deviceRef, fence: device.fence }], now)
  return { device: await lockDevice(tx, session), pools: await lockPools(tx, session) }
}

async function lockDevice(
  tx: Write,
  { deviceRef }: Session,
): Promise<DeviceRow & { readonly fence: number }> {
  const row = await tx.one<DeviceRow & { readonly fence: number }>(
    `select user_num, device_keys, ed25519, curve25519, identity_changed, version, generation, fence,
       day_start_ts, day_stored
     from devices where device_num = $1 and removed_ts is null for no key update`,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return row
}

/**
 * After its device, or its user, was locked.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function requireToken(tx: Queries, { tokenHash, deviceRef }: Session): Promise<void> {
  const row = await tx.one(
    `select 1 from access_tokens where token_hash = $1 and device_num = $2`,
    tokenHash,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
}

/** The first lock of whoever may change a user's device list, her devices or her password. */
export async function lockUser(tx: Queries, user: UserRef): Promise<{ readonly password_hash: string }> {
  const row = await tx.one<{ password_hash: string }>(
    `select password_hash from users where user_num = $1 for update`,
    user,
  )
  if (row === undefined) throw new Error(`user ${user} is not there`)
  return row
}

export function toIdentity(row: IdentityRow): Identity {
  return {
    ...(row.ed25519 !== null && { ed25519: row.ed25519 as NonNullable<Identity['ed25519']> }),
    ...(row.curve25519 !== null && { curve25519: row.curve25519 as NonNullable<Identity['curve25519']> }),
  }
}
