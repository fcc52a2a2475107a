/**
 * Sessions: how a login makes or takes up a device and gives it a token (find-sessions.ts finds it again). All logins of a
 * user happen one after the other, under the lock of her row.
 */
import type { DeviceId } from '@latchkey/protocol'
import type { NewSession } from '../../accounts/port.ts'
import { forbidden, invalidParam, quoted } from '../../matrix-error.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Queries } from './database.ts'
import { endTokens } from './remove-devices.ts'
import { lockUser } from './session-device.ts'

export function openSession(core: Core, session: NewSession): Promise<Session> {
  const { account, deviceId, tokenHash, now } = session
  return write(core, async (tx) => {
    const { password_hash: passwordHash } = await lockUser(tx, account.userRef)
    if (passwordHash !== account.passwordHash) {
      throw forbidden('The password was changed during this login.')
    }
    const deviceRef = (await takeUpDevice(core, tx, session)) ?? (await createDevice(core, tx, session))
    await tx.run(
      `insert into access_tokens (token_hash, device_num, created_ts) values ($1, $2, $3)`,
      tokenHash,
      deviceRef,
      now,
    )
    return { tokenHash, userRef: account.userRef, userId: account.userId, deviceRef, deviceId }
  })
}

/** A device of this ID that the user has or had; undefined when there was none. */
async function takeUpDevice(
  core: Core,
  tx: Write,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): Promise<DeviceRef | undefined> {
  const row = await tx.one<{ device_num: DeviceRef; removed_ts: number | null }>(
    `select device_num, removed_ts from devices where user_num = $1 and device_id = $2 for update`,
    userRef,
    deviceId,
  )
  if (row === undefined) return undefined
  if (row.removed_ts === null) {
    // The same device logs in again: it keeps its name and its keys, and only this login's token holds.
    await endTokens(tx, [row.device_num])
    await tx.run(
      `update devices set last_seen_ts = $2, last_seen_ip = $3 where device_num = $1`,
      row.device_num,
      now,
      ip ?? null,
    )
    return row.device_num
  }
  await requireNoKeyNamed(tx, userRef, deviceId)
  await requireRoom(core, tx, userRef)
  await tx.run(
    `update devices set removed_ts = null, created_ts = $2, last_seen_ts = $2, last_seen_ip = $3, display_name = $4
     where device_num = $1`,
    row.device_num,
    now,
    ip ?? null,
    displayName ?? null,
  )
  tx.changes.listChanged(userRef)
  return row.device_num
}

async function createDevice(
  core: Core,
  tx: Write,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): Promise<DeviceRef> {
  await requireNoKeyNamed(tx, userRef, deviceId)
  await requireRoom(core, tx, userRef)
  const row = await tx.one<{ device_num: DeviceRef }>(
    `insert into devices (user_num, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, fence)
     select $1, $2, $3, $4, $4, $5, fence from stream returning device_num`,
    userRef,
    deviceId,
    displayName ?? null,
    now,
    ip ?? null,
  )
  if (row === undefined) throw new Error('the stream has no row')
  tx.changes.listChanged(userRef)
  return row.device_num
}

/** The other half of cross-signing.ts's rule: device IDs and cross-signing public keys share one name space. */
async function requireNoKeyNamed(tx: Queries, user: UserRef, deviceId: DeviceId): Promise<void> {
  const sql = `select 1 from cross_signing_keys where user_num = $1 and public_key = $2`
  if ((await tx.one(sql, user, deviceId)) === undefined) return
  throw invalidParam(
    `device_id ${quoted(deviceId)} is one of this user's cross-signing public keys; expected an ID of its own.`,
  )
}

async function requireRoom({ limits: { devicesPerUser } }: Core, tx: Queries, user: UserRef): Promise<void> {
  const row = await tx.one<{ n: number }>(
    `select count(*) as n from devices where user_num = $1 and removed_ts is null`,
    user,
  )
  if ((row?.n ?? 0) >= devicesPerUser) {
    throw invalidParam(`This account has ${devicesPerUser} devices, the most it may have: log one out first.`)
  }
}
