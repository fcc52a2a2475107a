/**
 * The proof of a session in the transaction that writes for it: a late request of a removed device stores nothing. The
 * user or the device is locked first. A later statement reads the token, so its snapshot includes the transaction that
 * the lock waited for. Tokens change only under the locks of their user and their device.
 */
import { compareCodePoints } from '@latchkey/protocol'
import { unknownToken } from '../../matrix-error.ts'
import type { RefusedTry } from '../../pool/conflict.ts'
import type { Identity } from '../../pool/identity.ts'
import type { Session, UserRef } from '../../session.ts'
import { DEVICE_COUNTS, type DeviceCountsRow, USER_COUNTS, type UserCountsRow } from '../day-counts.ts'
import type { Write } from './core.ts'
import type { Transaction } from './database.ts'
import type { LockedDeviceRef, LockedUser } from './locks.ts'
import { POOL_COLUMNS, type PoolRow } from './pool-row.ts'
import { purgeStaleLocked } from './purge-stale-pools.ts'

export type IdentityRow = { readonly ed25519: string | null; readonly curve25519: string | null }

export type DeviceRow = IdentityRow &
  DeviceCountsRow & {
    readonly device_num: LockedDeviceRef
    readonly device_keys: string | null
    readonly identity_changed: boolean
    readonly version: number
    readonly generation: number
  }

/** A locked user, and what the devices of the user have used of its daily budgets. */
export type LockedOwner = { readonly user: LockedUser; readonly counts: UserCountsRow }

/** The device of a proved session, and its pools, all locked. */
export type LockedDevice = {
  readonly deviceRef: LockedDeviceRef
  /** Only if the user was locked before the device. */
  readonly owner: LockedOwner | undefined
  readonly row: DeviceRow
  /** Its pools were below the fence and were purged in this transaction, which has to be committed for that. */
  readonly isPurged: boolean
  /** By algorithm, in code-point order. */
  readonly pools: readonly PoolRow[]
  /** The last upload that was refused for a conflict (pool/conflict.ts). */
  readonly refused: RefusedTry | undefined
}

/**
 * Locks the device of a session and its pools, and proves the session. Pools of a device below the fence are purged.
 *
 * @param owner required by changes of the user's device list and daily budgets, because users are locked first
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockSessionDevice(
  tx: Write,
  session: Session,
  owner: LockedOwner | undefined,
  now: number,
): Promise<LockedDevice> {
  let row = await lockDevice(tx, session)
  const isPurged = row.fence < tx.fence.number
  if (isPurged) {
    await purgeStaleLocked(tx, [row], now)
    row = await lockDevice(tx, session)
  }
  return {
    deviceRef: row.device_num,
    owner,
    row,
    isPurged,
    ...(await lockPools(tx, session, row.device_num)),
  }
}

/**
 * Locks the pools of a session's device, by number. The same statement can read the token, because the device is
 * locked.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
async function lockPools(
  tx: Transaction,
  { tokenHash }: Session,
  device: LockedDeviceRef,
): Promise<Pick<LockedDevice, 'pools' | 'refused'>> {
  type Row = { readonly refused_materials: string | null; readonly refused_ts: number | null }
  const rows = await tx.all<(PoolRow | { readonly pool_num: null }) & Row>(
    `with locked as (select ${POOL_COLUMNS} from pools where device_num = $1 order by pool_num for update)
     select locked.*, conflicts.materials as refused_materials, conflicts.ts as refused_ts
     from access_tokens left join conflicts using (device_num) left join locked on true
     where token_hash = $2 and access_tokens.device_num = $1`,
    device,
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
  tx: Transaction,
  { deviceRef }: Session,
): Promise<DeviceRow & { readonly fence: number }> {
  const row = await tx.one<DeviceRow & { readonly fence: number }>(
    `select device_num, device_keys, ed25519, curve25519, identity_changed, version, generation, fence,
       ${DEVICE_COUNTS}
     from devices where device_num = $1 and removed_ts is null for no key update`,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
  return row
}

/**
 * Proves a session under a lock that keeps it from ending; `unlocked` is for writes that may outlive it.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function requireToken(
  tx: Transaction,
  { tokenHash, deviceRef }: Session,
  _lock: LockedUser | LockedDeviceRef | 'unlocked',
): Promise<void> {
  const row = await tx.one(
    `select 1 from access_tokens where token_hash = $1 and device_num = $2`,
    tokenHash,
    deviceRef,
  )
  if (row === undefined) throw unknownToken()
}

/** The first lock of each transaction that may change a user's device list, devices or password. */
export async function lockUser(
  tx: Transaction,
  user: UserRef,
): Promise<LockedOwner & { readonly passwordHash: string; readonly isLocked: boolean }> {
  type Row = UserCountsRow & { user_num: LockedUser; password_hash: string; locked_ts: number | null }
  const row = await tx.one<Row>(
    `select user_num, password_hash, locked_ts, ${USER_COUNTS} from users where user_num = $1 for update`,
    user,
  )
  if (row === undefined) throw new Error(`user ${user} has no row`)
  const { user_num: locked, password_hash: passwordHash, locked_ts: lockedTs } = row
  return { user: locked, passwordHash, isLocked: lockedTs !== null, counts: row }
}

/**
 * Locks the user of a session and proves the session.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockSessionUser(tx: Transaction, session: Session): Promise<LockedUser> {
  const { user } = await lockUser(tx, session.userRef)
  await requireToken(tx, session, user)
  return user
}

export function toIdentity(row: IdentityRow): Identity {
  return {
    ...(row.ed25519 !== null && { ed25519: row.ed25519 as NonNullable<Identity['ed25519']> }),
    ...(row.curve25519 !== null && { curve25519: row.curve25519 as NonNullable<Identity['curve25519']> }),
  }
}
