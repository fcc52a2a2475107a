/** The administration commands' operations (admin/port.ts). */
import type { UserId } from '@latchkey/protocol'
import { LOCKED_PREFIX } from '../../accounts/locked-users.ts'
import type { AdminStore, Page, RegistrationTokenEntry, UserEntry } from '../../admin/port.ts'
import type { Choice } from '../../devices/remove.ts'
import type { UserRef } from '../../session.ts'
import { toUser, USER_COLUMNS, type UserRow } from '../user-row.ts'
import { type Core, write } from './core.ts'
import { lockChosenOf, removeInTransaction } from './remove-devices.ts'

export function adminStore(core: Core): AdminStore {
  return {
    users: (page) => listUsers(core, page),
    user: (userId) => findUser(core, userId),
    setLocked: (user, lockedTs) => setLocked(core, user, lockedTs),
    removeDevices: (user, choice, now) => removeDevices(core, user, choice, now),
    resetPassword: (change) => resetPassword(core, change),
    registrationTokens: (page) => listTokens(core, page),
    revokeRegistrationTokens: (prefix) => revokeTokens(core, prefix),
  }
}

async function listUsers({ db }: Core, { after, limit }: Page): Promise<readonly UserEntry[]> {
  const rows = await db.all<UserRow>(
    `select ${USER_COLUMNS} from users where user_id > $1 order by user_id limit $2`,
    after,
    limit,
  )
  return rows.map(toUser)
}

async function findUser({ db }: Core, userId: UserId): Promise<UserEntry | undefined> {
  const row = await db.one<UserRow>(`select ${USER_COLUMNS} from users where user_id = $1`, userId)
  return row && toUser(row)
}

/** Locks the devices too, so that no session is proved by a statement that has not seen the change. */
function setLocked(core: Core, user: UserRef, lockedTs: number | undefined): Promise<boolean> {
  return write(core, async (tx) => {
    const { devices } = await lockChosenOf(tx, user, { kind: 'all' })
    const changed = await tx.run(
      `update users set locked_ts = $1 where user_num = $2 and (locked_ts is null) = ($1::bigint is not null)`,
      lockedTs ?? null,
      user,
    )
    if (changed === 0) return false
    const stored = lockedTs === undefined ? 'substr(token_hash, length($2) + 1)' : '$2 || token_hash'
    const refs = devices.map((device) => device.device_num)
    await tx.run(
      `update access_tokens set token_hash = ${stored} where device_num = any($1::bigint[]) and $2::text is not null`,
      refs,
      LOCKED_PREFIX,
    )
    for (const device of refs) tx.changes.wakeDevice(device)
    return true
  })
}

function removeDevices(core: Core, user: UserRef, choice: Choice, now: number): Promise<number> {
  return write(core, async (tx) => {
    const chosen = await lockChosenOf(tx, user, choice)
    await removeInTransaction(tx, chosen, now)
    return chosen.devices.length
  })
}

function resetPassword(
  core: Core,
  { user, passwordHash, endSessions, now }: Parameters<AdminStore['resetPassword']>[0],
): Promise<number> {
  return write(core, async (tx) => {
    const chosen = await lockChosenOf(tx, user, { kind: 'all' })
    await tx.run(`update users set password_hash = $2 where user_num = $1`, user, passwordHash)
    if (!endSessions) return 0
    await removeInTransaction(tx, chosen, now)
    return chosen.devices.length
  })
}

type TokenRow = {
  readonly token_hash: string
  readonly uses: number
  readonly uses_allowed: number | null
  readonly expires_ts: number | null
  readonly created_ts: number
}

async function listTokens({ db }: Core, { after, limit }: Page): Promise<readonly RegistrationTokenEntry[]> {
  const rows = await db.all<TokenRow>(
    `select token_hash, uses, uses_allowed, expires_ts, created_ts from registration_tokens
     where token_hash > $1 order by token_hash limit $2`,
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
  return write(core, async (tx) => {
    const rows = await tx.all<{ token_hash: string }>(
      `delete from registration_tokens where substr(token_hash, 1, length($1)) = $1 returning token_hash`,
      prefix,
    )
    return rows.map((row) => row.token_hash)
  })
}
