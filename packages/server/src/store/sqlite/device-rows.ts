/** A user's own devices: list, find, rename. */
import type { DeviceId } from '@latchkey/protocol'
import type { Device } from '../../devices/port.ts'
import { decideRenaming } from '../../devices/rename.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import { proveSession } from './session-device.ts'

type DeviceRow = {
  readonly device_num: DeviceRef
  readonly device_id: DeviceId
  readonly display_name: string | null
  readonly last_seen_ts: number
  readonly last_seen_ip: string | null
}

const COLUMNS =
  'device_num, device_id, display_name, coalesce(last_seen_ts, created_ts) as last_seen_ts, last_seen_ip'

export function listDevices(core: Core, user: UserRef): readonly Device[] {
  return core.db
    .all<DeviceRow>(
      `select ${COLUMNS} from devices where user_num = ? and removed_ts is null order by device_id`,
      user,
    )
    .map((row) => toDevice(core, row))
}

export function getDevice(core: Core, user: UserRef, deviceId: DeviceId): Device | undefined {
  const row = core.db.one<DeviceRow>(
    `select ${COLUMNS} from devices where user_num = ? and device_id = ? and removed_ts is null`,
    user,
    deviceId,
  )
  return row && toDevice(core, row)
}

export function renameDevice(
  core: Core,
  session: Session,
  deviceId: DeviceId,
  displayName: string,
): Promise<boolean> {
  return core.queue.guarded((tx) => {
    const { userRef } = proveSession(tx, session).session
    const device = getDevice(core, userRef, deviceId)
    const { found, changesList } = decideRenaming(device, displayName)
    if (device !== undefined && changesList) {
      tx.run(`update devices set display_name = ? where device_num = ?`, displayName, device.deviceRef)
      deviceListChanged(core, tx, userRef)
    }
    return found
  })
}

function toDevice(core: Core, row: DeviceRow): Device {
  const noted = core.lastSeen.unwritten(row.device_num)
  const lastSeenTs = noted?.ts ?? row.last_seen_ts
  const lastSeenIp = noted?.ip ?? row.last_seen_ip
  return {
    deviceRef: row.device_num,
    deviceId: row.device_id,
    lastSeenTs,
    ...(row.display_name !== null && { displayName: row.display_name }),
    ...(lastSeenIp !== null && { lastSeenIp }),
  }
}
