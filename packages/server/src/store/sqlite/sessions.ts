/** Sessions: how a login makes or takes up a device and gives it a token, and how requests find it again. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { Account, NewSession } from '../../accounts/port.ts'
import { forbidden, invalidParam, quoted } from '../../matrix-error.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import { endTokens } from './remove-devices.ts'

export function openSession(core: Core, session: NewSession): Promise<Session> {
  return core.queue.guarded(() => {
    const { account, deviceId, tokenHash, now } = session
    requireSamePassword(core, account)
    const deviceRef = takeUpDevice(core, session) ?? createDevice(core, session)
    core.db.run(
      `insert into access_tokens (token_hash, device_num, created_ts) values (?, ?, ?)`,
      tokenHash,
      deviceRef,
      now,
    )
    return { tokenHash, userRef: account.userRef, userId: account.userId, deviceRef, deviceId }
  })
}

function requireSamePassword({ db }: Core, { userRef, passwordHash }: Account): void {
  const row = db.one<{ password_hash: string }>(`select password_hash from users where user_num = ?`, userRef)
  if (row?.password_hash !== passwordHash) throw forbidden('The password was changed during this login.')
}

/** A device of this ID that the user has or had; undefined when there was none. */
function takeUpDevice(
  core: Core,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): DeviceRef | undefined {
  const row = core.db.one<{ device_num: DeviceRef; removed_ts: number | null }>(
    `select device_num, removed_ts from devices where user_num = ? and device_id = ?`,
    userRef,
    deviceId,
  )
  if (row === undefined) return undefined
  if (row.removed_ts === null) {
    // The same device logs in again: it keeps its name and its keys, and only this login's token holds.
    endTokens(core, row.device_num)
    core.db.run(
      `update devices set last_seen_ts = ?, last_seen_ip = ? where device_num = ?`,
      now,
      ip ?? null,
      row.device_num,
    )
    return row.device_num
  }
  requireNoKeyNamed(core, userRef, deviceId)
  requireRoom(core, userRef)
  core.db.run(
    `update devices set removed_ts = null, created_ts = ?1, last_seen_ts = ?1, last_seen_ip = ?2, display_name = ?3,
       fence = ?4
     where device_num = ?5`,
    now,
    ip ?? null,
    displayName ?? null,
    core.fence.number,
    row.device_num,
  )
  deviceListChanged(core, userRef)
  return row.device_num
}

function createDevice(
  core: Core,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): DeviceRef {
  requireNoKeyNamed(core, userRef, deviceId)
  requireRoom(core, userRef)
  const deviceRef = core.db.insert(
    `insert into devices (user_num, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, fence)
     values (?1, ?2, ?3, ?4, ?4, ?5, ?6)`,
    userRef,
    deviceId,
    displayName ?? null,
    now,
    ip ?? null,
    core.fence.number,
  )
  deviceListChanged(core, userRef)
  return deviceRef as DeviceRef
}

/** The other half of cross-signing.ts's rule: device IDs and cross-signing public keys share one name space. */
function requireNoKeyNamed({ db }: Core, user: UserRef, deviceId: DeviceId): void {
  const sql = `select 1 from cross_signing_keys where user_num = ? and public_key = ?`
  if (db.one<unknown>(sql, user, deviceId) === undefined) return
  throw invalidParam(
    `device_id ${quoted(deviceId)} is one of this user's cross-signing public keys; expected an ID of its own.`,
  )
}

function requireRoom(core: Core, user: UserRef): void {
  const { devicesPerUser } = core.limits
  const row = core.db.one<{ n: number }>(
    `select count(*) as n from devices where user_num = ? and removed_ts is null`,
    user,
  )
  if ((row?.n ?? 0) >= devicesPerUser) {
    throw invalidParam(`This account has ${devicesPerUser} devices, the most it may have: log one out first.`)
  }
}

/** The session of a token; undefined when there is none (any more). */
export function findSession({ db, sessions }: Core, tokenHash: TokenHash): Session | undefined {
  const kept = sessions.get(tokenHash)
  if (kept !== undefined) return kept
  const row = db.one<{ user_num: UserRef; user_id: UserId; device_num: DeviceRef; device_id: DeviceId }>(
    `select user_num, user_id, device_num, device_id
     from access_tokens join devices using (device_num) join users using (user_num)
     where token_hash = ? and removed_ts is null`,
    tokenHash,
  )
  if (row === undefined) return undefined
  const session = {
    tokenHash,
    userRef: row.user_num,
    userId: row.user_id,
    deviceRef: row.device_num,
    deviceId: row.device_id,
  }
  sessions.keep(session)
  return session
}
