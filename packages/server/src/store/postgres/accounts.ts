/** Accounts, their passwords, and the registration tokens that make them. */
import type { UserId } from '@latchkey/protocol'
import type { Account, AccountStore, NewAccount, NewRegistrationToken } from '../../accounts/port.ts'
import { MatrixError } from '../../matrix-error.ts'
import type { UserRef } from '../../session.ts'
import { type Core, write } from './core.ts'
import type { Queries } from './database.ts'
import { lockDevices, removeInTransaction } from './remove-devices.ts'
import { trackAwaited } from './tracked-users.ts'

export function createAccount(core: Core, account: NewAccount): Promise<Account> {
  const { userId, passwordHash, registrationTokenHash, now } = account
  return write(core, async (tx) => {
    // Waits for another transaction that is making the same account.
    const row = await tx.one<{ user_num: UserRef }>(
      `insert into users (user_id, password_hash, created_ts) values ($1, $2, $3)
       on conflict (user_id) do nothing returning user_num`,
      userId,
      passwordHash,
      now,
    )
    if (row === undefined) throw new MatrixError(400, 'M_USER_IN_USE', 'This user name is taken.')
    if (registrationTokenHash !== undefined) await spendRegistrationToken(tx, registrationTokenHash, now)
    await trackAwaited(tx, userId, row.user_num)
    return { userRef: row.user_num, userId, passwordHash }
  })
}

export async function findAccount(db: Queries, userId: UserId): Promise<Account | undefined> {
  const row = await db.one<{ user_num: UserRef; password_hash: string }>(
    `select user_num, password_hash from users where user_id = $1`,
    userId,
  )
  return row && { userRef: row.user_num, userId, passwordHash: row.password_hash }
}

/** What makes a registration token good for one more account, given its hash and the time. */
const TOKEN_HOLDS = `token_hash = $1 and (uses_allowed is null or uses < uses_allowed)
  and (expires_ts is null or expires_ts > $2)`

export async function registrationTokenValid(db: Queries, tokenHash: string, now: number): Promise<boolean> {
  return (
    (await db.one(`select 1 from registration_tokens where ${TOKEN_HOLDS}`, tokenHash, now)) !== undefined
  )
}

/** Of two that spend the last use at once, the second waits for the first and finds it spent. */
async function spendRegistrationToken(tx: Queries, tokenHash: string, now: number): Promise<void> {
  const spent = await tx.run(
    `update registration_tokens set uses = uses + 1 where ${TOKEN_HOLDS}`,
    tokenHash,
    now,
  )
  if (spent === 0) {
    throw new MatrixError(401, 'M_FORBIDDEN', 'The registration token is used up, has expired or is unknown.')
  }
}

export async function createRegistrationToken(db: Queries, token: NewRegistrationToken): Promise<void> {
  await db.run(
    `insert into registration_tokens (token_hash, uses_allowed, expires_ts, created_ts) values ($1, $2, $3, $4)`,
    token.tokenHash,
    token.usesAllowed ?? null,
    token.expiresTs ?? null,
    token.now,
  )
}

export function setPassword(
  core: Core,
  { session, passwordHash, endOthers, now }: Parameters<AccountStore['setPassword']>[0],
): Promise<void> {
  return write(core, async (tx) => {
    const devices = await lockDevices(tx, session)
    await tx.run(`update users set password_hash = $2 where user_num = $1`, session.userRef, passwordHash)
    if (!endOthers) return
    const others = devices.map((device) => device.device_num).filter((ref) => ref !== session.deviceRef)
    await removeInTransaction(tx, session.userRef, others, now)
  })
}
