/** Sessions: a login on a device (accounts/open-session.ts), and the session of an access token. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { decideLogin, type LoginFacts } from '../../accounts/open-session.ts'
import type { NewSession } from '../../accounts/port.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import type { Reader, Transaction } from './database.ts'
import { noteNetwork } from './known-networks.ts'
import { insertTokens } from './refresh.ts'
import { endTokens } from './remove-devices.ts'

export function openSession(core: Core, session: NewSession): Promise<Session> {
  return core.queue.guarded((tx) => openSessionIn(core, tx, session))
}

/** As `openSession`, in the transaction of another operation. */
export function openSessionIn(core: Core, tx: Transaction, session: NewSession): Session {
  const { account, deviceId, tokenHash, now } = session
  const deviceRef = openDevice(core, tx, session)
  insertTokens(tx, deviceRef, session, now)
  noteNetwork(tx, session)
  return { tokenHash, userRef: account.userRef, userId: account.userId, deviceRef, deviceId }
}

function openDevice(core: Core, tx: Transaction, session: NewSession): DeviceRef {
  const decision = decideLogin(loginFacts(tx, session), session, core.limits)
  if (decision.changesList) deviceListChanged(core, tx, session.account.userRef)
  if (decision.kind === 'create') return createDevice(core, tx, session)
  const { kind, deviceRef, endsTokens } = decision
  if (endsTokens) endTokens(core, tx, deviceRef)
  if (kind === 'renew') renewDevice(tx, deviceRef, session)
  else restoreDevice(core, tx, deviceRef, session)
  return deviceRef
}

function loginFacts(db: Reader, { account: { userRef }, deviceId }: NewSession): LoginFacts {
  const row = db.one<{
    password_hash: string
    locked_ts: number | null
    device_num: DeviceRef | null
    removed_ts: number | null
    names_key: number
    device_count: number
  }>(
    `select password_hash, locked_ts, device_num, removed_ts,
       exists (select 1 from cross_signing_keys where user_num = ?1 and public_key = ?2) as names_key,
       (select count(*) from devices where user_num = ?1 and removed_ts is null) as device_count
     from users left join devices on devices.user_num = users.user_num and device_id = ?2
     where users.user_num = ?1`,
    userRef,
    deviceId,
  )
  if (row === undefined) throw new Error(`user ${userRef} does not exist`)
  return {
    passwordHash: row.password_hash,
    isLocked: row.locked_ts !== null,
    device:
      row.device_num === null ? undefined : { deviceRef: row.device_num, isRemoved: row.removed_ts !== null },
    namesKey: row.names_key === 1,
    deviceCount: row.device_count,
  }
}

function renewDevice(tx: Transaction, deviceRef: DeviceRef, { ip, now }: NewSession): void {
  tx.run(
    `update devices set last_seen_ts = ?, last_seen_ip = ? where device_num = ?`,
    now,
    ip ?? null,
    deviceRef,
  )
}

function restoreDevice(
  core: Core,
  tx: Transaction,
  deviceRef: DeviceRef,
  { displayName, ip, now }: NewSession,
): void {
  tx.run(
    `update devices set removed_ts = null, created_ts = ?1, last_seen_ts = ?1, last_seen_ip = ?2, display_name = ?3,
       fence = ?4
     where device_num = ?5`,
    now,
    ip ?? null,
    displayName ?? null,
    core.fence.number,
    deviceRef,
  )
}

function createDevice(
  core: Core,
  tx: Transaction,
  { account: { userRef }, deviceId, displayName, ip, now }: NewSession,
): DeviceRef {
  return tx.insert(
    `insert into devices (user_num, device_id, display_name, created_ts, last_seen_ts, last_seen_ip, fence)
     values (?1, ?2, ?3, ?4, ?4, ?5, ?6)`,
    userRef,
    deviceId,
    displayName ?? null,
    now,
    ip ?? null,
    core.fence.number,
  ) as DeviceRef
}

/** The session of a token; undefined when it has ended, or the token is unknown. */
export function findSession({ db, sessions }: Core, tokenHash: TokenHash): Session | undefined {
  const kept = sessions.get(tokenHash)
  if (kept !== undefined) return kept
  const row = db.one<{
    user_num: UserRef
    user_id: UserId
    device_num: DeviceRef
    device_id: DeviceId
    expires_ts: number | null
    replaces_hash: TokenHash | null
  }>(
    `select user_num, user_id, device_num, device_id, expires_ts, replaces_hash
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
    ...(row.expires_ts !== null && { expiresTs: row.expires_ts }),
    ...(row.replaces_hash !== null && { replaces: row.replaces_hash }),
  }
  sessions.keep(session)
  return session
}
