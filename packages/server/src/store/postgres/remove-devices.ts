/**
 * The end of devices: logout, deletion, a change of password. One transaction takes the tokens, the keys, the messages
 * and what was signed. The row and the log of its pools stay, marked as removed: they are the memory that keeps issued
 * keys from being issued again, should the device ID be used once more (sessions.ts).
 */
import type { DeviceId } from '@latchkey/protocol'
import { unknownToken } from '../../matrix-error.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Queries } from './database.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import { purgePools } from './purge-pools.ts'
import { lockUser, requireToken } from './session-device.ts'

type DeviceName = { readonly device_num: DeviceRef; readonly device_id: DeviceId }

export function removeDevices(
  core: Core,
  session: Session,
  deviceIds: readonly DeviceId[],
  now: number,
): Promise<void> {
  const wanted = new Set(deviceIds)
  return removeChosen(core, session, now, (device) => wanted.has(device.device_id))
}

export function removeAllDevices(core: Core, session: Session, now: number): Promise<void> {
  return removeChosen(core, session, now, () => true)
}

function removeChosen(
  core: Core,
  session: Session,
  now: number,
  isChosen: (device: DeviceName) => boolean,
): Promise<void> {
  return write(core, async (tx) => {
    const devices = await lockDevices(tx, session)
    const chosen = devices.filter(isChosen).map((device) => device.device_num)
    await removeInTransaction(tx, session.userRef, chosen, now)
  })
}

/**
 * Locks a user and all her devices, which no other transaction adds to or takes from meanwhile.
 *
 * @throws {MatrixError} 401 when the session has ended.
 */
export async function lockDevices(tx: Queries, session: Session): Promise<readonly DeviceName[]> {
  await lockUser(tx, session.userRef)
  const devices = await tx.all<DeviceName>(
    `select device_num, device_id from devices where user_num = $1 and removed_ts is null
     order by device_num for update`,
    session.userRef,
  )
  if (!devices.some((device) => device.device_num === session.deviceRef)) throw unknownToken()
  await requireToken(tx, session)
  return devices
}

/** Removes a user's existing devices, all locked. */
export async function removeInTransaction(
  tx: Write,
  user: UserRef,
  devices: readonly DeviceRef[],
  now: number,
): Promise<void> {
  if (devices.length === 0) return
  await endTokens(tx, devices)
  await purgePools(tx, devices, REMOVAL_PURGE, now)
  await dropDeviceSignatures(tx, devices)
  for (const table of BELONGINGS) {
    await tx.run(`delete from ${table} where device_num = any($1::bigint[])`, devices)
  }
  await tx.run(
    `update devices set removed_ts = $2, display_name = null, last_seen_ts = null, last_seen_ip = null,
       device_keys = null, ed25519 = null, curve25519 = null, identity_changed = false
     where device_num = any($1::bigint[])`,
    devices,
    now,
  )
  tx.changes.listChanged(user)
}

/** What goes with a device, beside its pools. */
const BELONGINGS = ['former_identities', 'inbox', 'sent_transactions', 'reset_answers'] as const

/** Ends the sessions of locked devices, and their waiting syncs with them. */
export async function endTokens(tx: Write, devices: readonly DeviceRef[]): Promise<void> {
  await tx.run(`delete from access_tokens where device_num = any($1::bigint[])`, devices)
  for (const device of devices) tx.changes.wakeDevice(device)
}
