/**
 * A login on a device (accounts/open-session.ts); find-sessions.ts finds the session again. All logins of a user happen
 * one after the other, under the lock of the user's row.
 */
import { decideLogin, type LoginFacts } from '../../accounts/open-session.ts'
import type { NewSession } from '../../accounts/port.ts'
import type { DeviceRef, Session } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import { noteNetwork } from './known-networks.ts'
import { insertTokens } from './refresh.ts'
import type { LockedDeviceRef, LockedUser } from './locks.ts'
import { endTokens } from './remove-devices.ts'
import { lockUser } from './session-device.ts'

export function openSession(core: Core, session: NewSession): Promise<Session> {
  return write(core, (tx) => openSessionIn(core, tx, session))
}

/** As `openSession`, in the transaction of another operation. */
export async function openSessionIn(core: Core, tx: Write, session: NewSession): Promise<Session> {
  const { account, deviceId, tokenHash, now } = session
  const deviceRef = await openDevice(core, tx, session)
  await insertTokens(tx, deviceRef, session, now)
  await noteNetwork(tx, session)
  return { tokenHash, userRef: account.userRef, userId: account.userId, deviceRef, deviceId }
}

async function openDevice(core: Core, tx: Write, session: NewSession): Promise<DeviceRef> {
  const { user, facts } = await loginFacts(tx, session)
  const decision = decideLogin(facts, session, core.limits)
  if (decision.changesList) tx.changes.listChanged(user)
  if (decision.kind === 'create') return createDevice(tx, session)
  const { kind, deviceRef, endsTokens } = decision
  if (endsTokens) await endTokens(tx, [deviceRef])
  if (kind === 'renew') await renewDevice(tx, deviceRef, session)
  else await restoreDevice(tx, deviceRef, session)
  return deviceRef
}

/** Locks the user, then the device. The lock of the user is enough for cross-signing keys and the number of devices. */
async function loginFacts(
  tx: Write,
  { account: { userRef }, deviceId }: NewSession,
): Promise<{ readonly user: LockedUser; readonly facts: LoginFacts<LockedDeviceRef> }> {
  const { user, passwordHash, isLocked } = await lockUser(tx, userRef)
  const row = await tx.one<{
    device_num: LockedDeviceRef | null
    removed_ts: number | null
    names_key: boolean
    device_count: number
  }>(
    `with device as (
       select device_num, removed_ts from devices where user_num = $1 and device_id = $2 for update)
     select device_num, removed_ts,
       exists (select 1 from cross_signing_keys where user_num = $1 and public_key = $2) as names_key,
       (select count(*) from devices where user_num = $1 and removed_ts is null) as device_count
     from (select 1) as one left join device on true`,
    userRef,
    deviceId,
  )
  if (row === undefined) throw new Error('a statement that always has a row returned none')
  const { device_num: deviceRef } = row
  return {
    user,
    facts: {
      passwordHash,
      isLocked,
      device: deviceRef === null ? undefined : { deviceRef, isRemoved: row.removed_ts !== null },
      namesKey: row.names_key,
      deviceCount: row.device_count,
    },
  }
}

async function renewDevice(tx: Write, deviceRef: LockedDeviceRef, { ip, now }: NewSession): Promise<void> {
  await tx.run(
    `update devices set last_seen_ts = $2, last_seen_ip = $3 where device_num = $1`,
    deviceRef,
    now,
    ip ?? null,
  )
}

async function restoreDevice(
  tx: Write,
  deviceRef: LockedDeviceRef,
  { displayName, ip, now }: NewSession,
): Promise<void> {
  await tx.run(
    `update devices set removed_ts = null, created_ts = $2, last_seen_ts = $2, last_seen_ip = $3, display_name = $4,
       fence = $5
     where device_num = $1`,
    deviceRef,
    now,
    ip ?? null,
    displayName ?? null,
    tx.fence.number,
  )
}

async function createDevice(
  tx: Write,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): Promise<DeviceRef> {
  const row = await tx.one<{ device_num: DeviceRef }>(
    `insert into devices (user_num, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, fence)
     values ($1, $2, $3, $4, $4, $5, $6) returning device_num`,
    userRef,
    deviceId,
    displayName ?? null,
    now,
    ip ?? null,
    tx.fence.number,
  )
  if (row === undefined) throw new Error('an inserted device has no number')
  return row.device_num
}
