/** Removal of devices, in one transaction with everything that is deleted with them (devices/remove.ts). */
import type { DeviceId } from '@latchkey/protocol'
import type { FinishedAuth } from '../../accounts/port.ts'
import {
  chosenDevices,
  type Choice,
  DELETED_WITH_DEVICE,
  type DeletedWithDevice,
  EMPTIED_WITH_DEVICE,
} from '../../devices/remove.ts'
import { unknownToken } from '../../matrix-error.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import type { Session, UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, type Write, write } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Transaction } from './database.ts'
import type { LockedDeviceRef, LockedUser } from './locks.ts'
import { purgePools } from './purge-pools.ts'
import { purgeStaleLocked, type FencedDevice } from './purge-stale-pools.ts'
import { lockUser, requireToken } from './session-device.ts'

export function removeDevices(
  core: Core,
  session: Session,
  choice: Choice,
  now: number,
  finishes?: FinishedAuth,
): Promise<void> {
  return write(core, async (tx) => {
    await finishAuth(tx, finishes)
    await removeInTransaction(tx, await lockChosen(tx, session, choice), now)
  })
}

/** Some devices of a locked user, each with the fence under which its pools were last changed. */
export type ChosenDevices = { readonly user: LockedUser; readonly devices: readonly FencedDevice[] }

/**
 * Locks a user with all devices, so that no other transaction adds or removes one. Returns the chosen ones.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockChosen(tx: Transaction, session: Session, choice: Choice): Promise<ChosenDevices> {
  const locked = await lockDevices(tx, session.userRef)
  const own = locked.rows.find((row) => row.device_num === session.deviceRef)
  if (own === undefined) throw unknownToken()
  await requireToken(tx, session, own.device_num)
  return chosenOf(locked, choice)
}

/** As `lockChosen`, for the operator, who has no session. */
export async function lockChosenOf(tx: Transaction, user: UserRef, choice: Choice): Promise<ChosenDevices> {
  return chosenOf(await lockDevices(tx, user), choice)
}

type LockedDevices = {
  readonly user: LockedUser
  readonly rows: readonly (FencedDevice & { readonly device_id: DeviceId })[]
}

async function lockDevices(tx: Transaction, userRef: UserRef): Promise<LockedDevices> {
  const { user } = await lockUser(tx, userRef)
  const rows = await tx.all<LockedDevices['rows'][number]>(
    `select device_num, device_id, fence from devices where user_num = $1 and removed_ts is null
     order by device_num for update`,
    user,
  )
  return { user, rows }
}

function chosenOf({ user, rows }: LockedDevices, choice: Choice): ChosenDevices {
  const existing = rows.map((row) => ({ deviceRef: row.device_num, deviceId: row.device_id }))
  const chosen = new Set(chosenDevices(existing, choice))
  return { user, devices: rows.filter((row) => chosen.has(row.device_num)) }
}

/** Removes devices. The pools of those below the fence are purged first, as by each operation on them. */
export async function removeInTransaction(
  tx: Write,
  { user, devices: chosen }: ChosenDevices,
  now: number,
): Promise<void> {
  if (chosen.length === 0) return
  await purgeStaleLocked(
    tx,
    chosen.filter(({ fence }) => fence < tx.fence.number),
    now,
  )
  const devices = chosen.map((device) => device.device_num)
  await endTokens(tx, devices)
  await purgePools(tx, devices, REMOVAL_PURGE, now)
  for (const belonging of DELETED_WITH_DEVICE) await DELETE[belonging](tx, user, devices)
  await tx.run(
    `update devices set removed_ts = $2, identity_changed = false,
       ${EMPTIED_WITH_DEVICE.map((column) => `${column} = null`).join(', ')}
     where device_num = any($1::bigint[])`,
    devices,
    now,
  )
  tx.changes.listChanged(user)
}

type Delete = (tx: Transaction, user: LockedUser, devices: readonly LockedDeviceRef[]) => Promise<void>

const DELETE: Readonly<Record<DeletedWithDevice, Delete>> = {
  signatures: dropDeviceSignatures,
  former_identities: from('former_identities'),
  inbox: from('inbox'),
  sent_transactions: from('sent_transactions'),
  reset_answers: from('reset_answers'),
  conflicts: from('conflicts'),
}

function from(table: DeletedWithDevice): Delete {
  return async (tx, _user, devices) => {
    await tx.run(`delete from ${table} where device_num = any($1::bigint[])`, devices)
  }
}

/** Ends the sessions of devices, and their waiting syncs. */
export async function endTokens(tx: Write, devices: readonly LockedDeviceRef[]): Promise<void> {
  await tx.run(`delete from access_tokens where device_num = any($1::bigint[])`, devices)
  for (const device of devices) tx.changes.wakeDevice(device)
}
