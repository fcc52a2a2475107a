/** Replacement of a session's tokens (accounts/refresh-tokens.ts). */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { userLocked } from '../../accounts/locked-users.ts'
import type { AccountStore, Refresh, StoredTokens } from '../../accounts/port.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'

export function refreshTokens(core: Core, refresh: Refresh): Promise<Session | undefined> {
  const { refreshHash, next, now } = refresh
  return core.queue.guarded((tx) => {
    const row = tx.one<{
      token_hash: TokenHash
      replaces_hash: TokenHash | null
      device_num: DeviceRef
      device_id: DeviceId
      user_num: UserRef
      user_id: UserId
      locked_ts: number | null
    }>(
      `select token_hash, replaces_hash, device_num, device_id, user_num, user_id, locked_ts
       from access_tokens join devices using (device_num) join users using (user_num)
       where refresh_hash = ? and removed_ts is null`,
      refreshHash,
    )
    if (row === undefined) return undefined
    if (row.locked_ts !== null) throw userLocked(401)
    const { device_num: deviceRef, token_hash: tokenHash } = row
    endReplaced(core, tx, { deviceRef, tokenHash }, row.replaces_hash)
    // An earlier answer to the same refresh token was lost.
    endToken(core, tx, deviceRef, 'replaces_hash', tokenHash)
    insertTokens(tx, deviceRef, next, now, tokenHash)
    const { device_id: deviceId, user_num: userRef, user_id: userId } = row
    return { tokenHash: next.tokenHash, deviceRef, deviceId, userRef, userId, replaces: tokenHash }
  })
}

export function confirmRefresh(
  core: Core,
  session: Parameters<AccountStore['confirmRefresh']>[0],
): Promise<void> {
  return core.queue.guarded((tx) => endReplaced(core, tx, session, session.replaces))
}

/** Ends the tokens that a session has replaced, now that it is used. */
function endReplaced(
  core: Core,
  tx: Transaction,
  { deviceRef, tokenHash }: Pick<Session, 'deviceRef' | 'tokenHash'>,
  replaces: TokenHash | null | undefined,
): void {
  if (replaces === undefined || replaces === null) return
  endToken(core, tx, deviceRef, 'token_hash', replaces)
  tx.run(`update access_tokens set replaces_hash = null where token_hash = ?`, tokenHash)
  core.sessions.forget(tokenHash)
}

function endToken(
  core: Core,
  tx: Transaction,
  device: DeviceRef,
  column: 'token_hash' | 'replaces_hash',
  hash: TokenHash,
): void {
  const ended = tx.all<{ token_hash: TokenHash }>(
    `delete from access_tokens where ${column} = ? and device_num = ? returning token_hash`,
    hash,
    device,
  )
  for (const { token_hash } of ended) core.sessions.forget(token_hash)
  if (ended.length > 0) core.wakes.device(tx, device)
}

export function insertTokens(
  tx: Transaction,
  device: DeviceRef,
  { tokenHash, expiresTs, refreshHash }: StoredTokens,
  now: number,
  replaces?: TokenHash,
): void {
  tx.run(
    `insert into access_tokens (token_hash, device_num, created_ts, expires_ts, refresh_hash, replaces_hash)
     values (?, ?, ?, ?, ?, ?)`,
    tokenHash,
    device,
    now,
    expiresTs ?? null,
    refreshHash ?? null,
    replaces ?? null,
  )
}
