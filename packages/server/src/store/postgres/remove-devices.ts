/** Removal of devices, in one transaction with all that devices/remove.ts says belongs to them. */
import type { DeviceId } from '@latchkey/protocol'
import {
  chosenDevices,
  type Choice,
  DELETED_WITH_DEVICE,
  type DeletedWithDevice,
  EMPTIED_WITH_DEVICE,
} from '../../devices/remove.ts'
import { unknownToken } from '../../matrix-error.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Queries } from './database.ts'
import { purgePools } from './purge-pools.ts'
import { purgeStaleLocked } from './purge-stale-pools.ts'
import { lockUser, requireToken } from './session-device.ts'

export function removeDevices(core: Core, session: Session, choice: Choice, now: number): Promise<void> {
  return write(core, async (tx) => {
    const devices = await lockChosen(tx, session, choice)
    await removeInTransaction(tx, session.userRef, devices, now)
  })
}

/** A device whose row is locked, and the fence under which its pools were last changed. */
export type LockedDevice = { readonly deviceRef: DeviceRef; readonly fence: number }

/**
 * Locks a user with all devices, which no other transaction adds or removes until the end of this one, and returns the
 * chosen ones.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockChosen(
  tx: Queries,
  session: Session,
  choice: Choice,
): Promise<readonly LockedDevice[]> {
  await lockUser(tx, session.userRef)
  const rows = await tx.all<{ device_num: DeviceRef; device_id: DeviceId; fence: number }>(
    `select device_num, device_id, fence from devices where user_num = $1 and removed_ts is null
     order by device_num for update`,
    session.userRef,
  )
  const devices = rows.map((row) => ({
    deviceRef: row.device_num,
    deviceId: row.device_id,
    fence: row.fence,
  }))
  if (!devices.some(({ deviceRef }) => deviceRef === session.deviceRef)) throw unknownToken()
  await requireToken(tx, session)
  const chosen = new Set(chosenDevices(devices, choice))
  return devices.filter(({ deviceRef }) => chosen.has(deviceRef))
}

/** Removes locked devices of a user. Those below the fence are purged first, as by any operation on their pools. */
export async function removeInTransaction(
  tx: Write,
  user: UserRef,
  locked: readonly LockedDevice[],
  now: number,
): Promise<void> {
  if (locked.length === 0) return
  const stale = locked.filter(({ fence }) => fence < tx.standing.fence)
  await purgeStaleLocked(
    tx,
    stale.map(({ deviceRef, fence }) => ({ device_num: deviceRef, fence })),
    now,
  )
  const devices = locked.map(({ deviceRef }) => deviceRef)
  await endTokens(tx, devices)
  await purgePools(tx, devices, REMOVAL_PURGE, now)
  for (const belonging of DELETED_WITH_DEVICE) await DELETE[belonging](tx, devices)
  await tx.run(
    `update devices set removed_ts = $2, identity_changed = false,
       ${EMPTIED_WITH_DEVICE.map((column) => `${column} = null`).join(', ')}
     where device_num = any($1::bigint[])`,
    devices,
    now,
  )
  tx.changes.listChanged(user)
}

type Delete = (tx: Queries, devices: readonly DeviceRef[]) => Promise<void>

const DELETE: Readonly<Record<DeletedWithDevice, Delete>> = {
  signatures_on_it: dropDeviceSignatures,
  former_identities: from('former_identities'),
  inbox: from('inbox'),
  sent_transactions: from('sent_transactions'),
  reset_answers: from('reset_answers'),
  conflicts: from('conflicts'),
}

function from(table: DeletedWithDevice): Delete {
  return async (tx, devices) => {
    await tx.run(`delete from ${table} where device_num = any($1::bigint[])`, devices)
  }
}

/** Ends the sessions of locked devices, and their waiting syncs with them. */
export async function endTokens(tx: Write, devices: readonly DeviceRef[]): Promise<void> {
  await tx.run(`delete from access_tokens where device_num = any($1::bigint[])`, devices)
  for (const device of devices) tx.changes.wakeDevice(device)
}
