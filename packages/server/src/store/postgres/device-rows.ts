/** A user's own devices: list, look up, rename. */
import type { DeviceId } from '@latchkey/protocol'
import type { Device } from '../../devices/port.ts'
import { decideRenaming } from '../../devices/rename.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, write } from './core.ts'
import type { Queries } from './database.ts'
import type { LastSeen } from './last-seen.ts'
import { lockSessionUser } from './session-device.ts'

type DeviceRow = {
  readonly device_num: DeviceRef
  readonly device_id: DeviceId
  readonly display_name: string | null
  readonly last_seen_ts: number
  readonly last_seen_ip: string | null
}

const COLUMNS =
  'device_num, device_id, display_name, coalesce(last_seen_ts, created_ts) as last_seen_ts, last_seen_ip'

export async function listDevices(core: Core, user: UserRef): Promise<readonly Device[]> {
  const seen = core.lastSeen.unwritten()
  const rows = await core.db.all<DeviceRow>(
    `select ${COLUMNS} from devices where user_num = $1 and removed_ts is null order by device_id`,
    user,
  )
  return rows.map((row) => toDevice(row, seen))
}

export async function getDevice(core: Core, user: UserRef, deviceId: DeviceId): Promise<Device | undefined> {
  const seen = core.lastSeen.unwritten()
  const row = await findDevice(core.db, user, deviceId)
  return row && toDevice(row, seen)
}

export function renameDevice(
  core: Core,
  session: Session,
  deviceId: DeviceId,
  displayName: string,
): Promise<boolean> {
  return write(core, async (tx) => {
    const user = await lockSessionUser(tx, session)
    const row = await findDevice(tx, user, deviceId)
    const { found, changesList } = decideRenaming(
      row && { displayName: row.display_name ?? undefined },
      displayName,
    )
    if (row !== undefined && changesList) {
      await tx.run(`update devices set display_name = $1 where device_num = $2`, displayName, row.device_num)
      tx.changes.listChanged(user)
    }
    return found
  })
}

async function findDevice(db: Queries, user: UserRef, deviceId: DeviceId): Promise<DeviceRow | undefined> {
  // A path may hold U+0000, which PostgreSQL's text cannot: no device has such an ID.
  if (deviceId.includes('\0')) return undefined
  return db.one<DeviceRow>(
    `select ${COLUMNS} from devices where user_num = $1 and device_id = $2 and removed_ts is null`,
    user,
    deviceId,
  )
}

function toDevice(row: DeviceRow, seen: ReturnType<LastSeen['unwritten']>): Device {
  const noted = seen(row.device_num)
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
