/** The administration commands' operations (admin/port.ts). */
import type { UserId } from '@latchkey/protocol'
import { LOCKED_PREFIX } from '../../accounts/locked-users.ts'
import type { AdminStore, Page, RegistrationTokenEntry, UserEntry } from '../../admin/port.ts'
import type { Choice } from '../../devices/remove.ts'
import type { DeviceRef, TokenHash, UserRef } from '../../session.ts'
import { toUser, USER_COLUMNS, type UserRow } from '../user-row.ts'
import type { Core } from './core.ts'
import { removeChosen, removing } from './remove-devices.ts'

export function adminStore(core: Core): AdminStore {
  return {
    users: async (page) => listUsers(core, page),
    user: async (userId) => findUser(core, userId),
    setLocked: (user, lockedTs) => setLocked(core, user, lockedTs),
    removeDevices: (user, choice, now) => removeDevices(core, user, choice, now),
    resetPassword: (change) => resetPassword(core, change),
    registrationTokens: async (page) => listTokens(core, page),
    revokeRegistrationTokens: (prefix) => revokeTokens(core, prefix),
  }
}

function listUsers({ db }: Core, { after, limit }: Page): readonly UserEntry[] {
  return db
    .all<UserRow>(
      `select ${USER_COLUMNS} from users where user_id > ? order by user_id limit ?`,
      after,
      limit,
    )
    .map(toUser)
}

function findUser({ db }: Core, userId: UserId): UserEntry | undefined {
  const row = db.one<UserRow>(`select ${USER_COLUMNS} from users where user_id = ?`, userId)
  return row && toUser(row)
}

function setLocked(core: Core, user: UserRef, lockedTs: number | undefined): Promise<boolean> {
  return core.queue.guarded((tx) => {
    const changed = tx.run(
      `update users set locked_ts = ?1 where user_num = ?2 and (locked_ts is null) = (?1 is not null)`,
      lockedTs ?? null,
      user,
    )
    if (changed === 0) return false
    const tokens = tx.all<{ token_hash: TokenHash; device_num: DeviceRef }>(
      `select token_hash, device_num from access_tokens join devices using (device_num) where user_num = ?`,
      user,
    )
    for (const { token_hash: hash, device_num: device } of tokens) {
      const stored = lockedTs === undefined ? hash.slice(LOCKED_PREFIX.length) : `${LOCKED_PREFIX}${hash}`
      tx.run(`update access_tokens set token_hash = ? where token_hash = ?`, stored, hash)
      core.sessions.forget(hash)
      core.wakes.device(tx, device)
    }
    return true
  })
}

function removeDevices(core: Core, user: UserRef, choice: Choice, now: number): Promise<number> {
  const removal = removing(core, user, choice)
  return core.queue.guarded((tx) => {
    const devices = removal.chosen()
    removeChosen(core, tx, user, devices, now)
    return devices.length
  }, removal)
}

function resetPassword(
  core: Core,
  { user, passwordHash, endSessions, now }: Parameters<AdminStore['resetPassword']>[0],
): Promise<number> {
  const removal = endSessions ? removing(core, user, { kind: 'all' }) : undefined
  return core.queue.guarded((tx) => {
    tx.run(`update users set password_hash = ? where user_num = ?`, passwordHash, user)
    const devices = removal?.chosen() ?? []
    removeChosen(core, tx, user, devices, now)
    return devices.length
  }, removal)
}

type TokenRow = {
  readonly token_hash: string
  readonly uses: number
  readonly uses_allowed: number | null
  readonly expires_ts: number | null
  readonly created_ts: number
}

function listTokens({ db }: Core, { after, limit }: Page): readonly RegistrationTokenEntry[] {
  const rows = db.all<TokenRow>(
    `select token_hash, uses, uses_allowed, expires_ts, created_ts from registration_tokens
     where token_hash > ? order by token_hash limit ?`,
    after,
    limit,
  )
  return rows.map((row) => ({
    tokenHash: row.token_hash,
    uses: row.uses,
    usesAllowed: row.uses_allowed ?? undefined,
    expiresTs: row.expires_ts ?? undefined,
    createdTs: row.created_ts,
  }))
}

function revokeTokens(core: Core, prefix: string): Promise<readonly string[]> {
  return core.queue.guarded((tx) =>
    tx
      .all<{ token_hash: string }>(
        `delete from registration_tokens where substr(token_hash, 1, length(?1)) = ?1 returning token_hash`,
        prefix,
      )
      .map((row) => row.token_hash),
  )
}
