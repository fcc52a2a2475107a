/**
 * The device behind a session, locked and checked inside the transaction that writes for it: a late request of a removed
 * device stores nothing. The lock comes first and the token is looked up by a later statement, whose snapshot has what
 * the lock was waited for. Tokens change only under the lock of their device.
 */
import { compareCodePoints } from '@latchkey/protocol'
import { unknownToken } from '../../matrix-error.ts'
import type { RefusedTry } from '../../pool/conflict.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session, UserRef } from '../../session.ts'
import type { Write } from './core.ts'
import type { Queries } from './database.ts'
import { POOL_COLUMNS, type PoolRow } from './pool-row.ts'
import { purgeStaleLocked } from './purge-stale-pools.ts'

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

/** A device and its pools, locked for the session that was proved. */
export type LockedDevice = {
  readonly session: Session
  readonly row: DeviceRow
  /** By algorithm, in code-point order. */
  readonly pools: readonly PoolRow[]
  /** The last upload that was refused for a conflict (pool/conflict.ts). */
  readonly refused: RefusedTry | undefined
}

/**
 * Proves a session and locks its device, against everything but messages to it, and the device's pools, which are purged
 * if the device is below the fence. A transaction that may change the user's device list locks the user before it.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockSessionDevice(tx: Write, session: Session, now: number): Promise<LockedDevice> {
  const row = await lockDevice(tx, session)
  if (row.fence >= tx.standing.fence) return { session, row, ...(await lockPools(tx, session)) }
  await purgeStaleLocked(tx, [{ device_num: session.deviceRef, fence: row.fence }], now)
  return { session, row: await lockDevice(tx, session), ...(await lockPools(tx, session)) }
}

/**
 * Locks the pools of a session's device, by number. The device is locked, so in the same statement its token may be
 * looked up: it changes under that lock only.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
async function lockPools(
  tx: Queries,
  { tokenHash, deviceRef }: Session,
): Promise<Pick<LockedDevice, 'pools' | 'refused'>> {
  type Row = { readonly refused_materials: string | null; readonly refused_ts: number | null }
  const rows = await tx.all<(PoolRow | { readonly pool_num: null }) & Row>(
    `with locked as (select ${POOL_COLUMNS} from pools where device_num = $1 order by pool_num for update)
     select locked.*, conflicts.materials as refused_materials, conflicts.ts as refused_ts
     from access_tokens left join conflicts using (device_num) left join locked on true
     where token_hash = $2 and access_tokens.device_num = $1`,
    deviceRef,
    tokenHash,
  )
  const [first] = rows
  if (first === undefined) throw unknownToken()
  const { refused_materials: materials, refused_ts: ts } = first
  return {
    refused: materials === null || ts === null ? undefined : { materials, ts },
    pools: rows
      .filter((row) => row.pool_num !== null)
      .sort((a, b) => compareCodePoints(a.algorithm, b.algorithm)),
  }
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
