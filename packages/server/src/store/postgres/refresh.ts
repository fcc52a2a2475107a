/** Replacement of a session's tokens (accounts/refresh-tokens.ts), under the lock of the user. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { userLocked } from '../../accounts/locked-users.ts'
import type { AccountStore, Refresh, StoredTokens } from '../../accounts/port.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Transaction } from './database.ts'
import { lockUser } from './session-device.ts'

export function refreshTokens(core: Core, refresh: Refresh): Promise<Session | undefined> {
  const { refreshHash, next, now } = refresh
  return write(core, async (tx) => {
    const owner = await tx.one<{ user_num: UserRef }>(
      `select user_num from access_tokens join devices using (device_num) where refresh_hash = $1`,
      refreshHash,
    )
    if (owner === undefined) return undefined
    const { isLocked } = await lockUser(tx, owner.user_num)
    const row = await tx.one<{
      token_hash: TokenHash
      replaces_hash: TokenHash | null
      device_num: DeviceRef
      device_id: DeviceId
      user_num: UserRef
      user_id: UserId
    }>(
      `select token_hash, replaces_hash, device_num, device_id, user_num, user_id
       from access_tokens join devices using (device_num) join users using (user_num)
       where refresh_hash = $1 and removed_ts is null`,
      refreshHash,
    )
    if (row === undefined) return undefined
    if (isLocked) throw userLocked(401)
    const { device_num: deviceRef, token_hash: tokenHash } = row
    await endReplaced(tx, { deviceRef, tokenHash }, row.replaces_hash)
    // An earlier answer to the same refresh token was lost.
    await endToken(tx, deviceRef, 'replaces_hash', tokenHash)
    await insertTokens(tx, deviceRef, next, now, tokenHash)
    const { device_id: deviceId, user_num: userRef, user_id: userId } = row
    return { tokenHash: next.tokenHash, deviceRef, deviceId, userRef, userId, replaces: tokenHash }
  })
}

export function confirmRefresh(
  core: Core,
  session: Parameters<AccountStore['confirmRefresh']>[0],
): Promise<void> {
  return write(core, async (tx) => {
    await lockUser(tx, session.userRef)
    await endReplaced(tx, session, session.replaces)
  })
}

/** Ends the tokens that a session has replaced, now that it is used. */
async function endReplaced(
  tx: Write,
  { deviceRef, tokenHash }: Pick<Session, 'deviceRef' | 'tokenHash'>,
  replaces: TokenHash | null | undefined,
): Promise<void> {
  if (replaces === undefined || replaces === null) return
  await endToken(tx, deviceRef, 'token_hash', replaces)
  await tx.run(`update access_tokens set replaces_hash = null where token_hash = $1`, tokenHash)
}

async function endToken(
  tx: Write,
  device: DeviceRef,
  column: 'token_hash' | 'replaces_hash',
  hash: TokenHash,
): Promise<void> {
  const ended = await tx.run(
    `delete from access_tokens where ${column} = $1 and device_num = $2`,
    hash,
    device,
  )
  if (ended > 0) tx.changes.wakeDevice(device)
}

export async function insertTokens(
  tx: Transaction,
  device: DeviceRef,
  { tokenHash, expiresTs, refreshHash }: StoredTokens,
  now: number,
  replaces?: TokenHash,
): Promise<void> {
  await tx.run(
    `insert into access_tokens (token_hash, device_num, created_ts, expires_ts, refresh_hash, replaces_hash)
     values ($1, $2, $3, $4, $5, $6)`,
    tokenHash,
    device,
    now,
    expiresTs ?? null,
    refreshHash ?? null,
    replaces ?? null,
  )
}
