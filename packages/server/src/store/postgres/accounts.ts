/** Accounts, their passwords, and registration tokens. */
import type { UserId } from '@latchkey/protocol'
import type { Account, AccountStore, NewAccount, NewRegistrationToken } from '../../accounts/port.ts'
import {
  isUsable,
  nameTaken,
  requireRegistrable,
  type StoredRegistrationToken,
} from '../../accounts/registration.ts'
import type { UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, write } from './core.ts'
import type { Queries, Transaction } from './database.ts'
import { lockChosen, removeInTransaction } from './remove-devices.ts'
import { openSessionIn } from './sessions.ts'
import { trackAwaited } from './tracked-users.ts'

export function createAccount(core: Core, account: NewAccount): Promise<Account> {
  const { userId, passwordHash, registrationTokenHash, login, finishes, now } = account
  return write(core, async (tx) => {
    await finishAuth(tx, finishes)
    if (registrationTokenHash !== undefined) {
      requireRegistrable(await lockRegistrationFacts(tx, userId, registrationTokenHash), now)
    }
    // Waits for another transaction that creates the same account. If that one commits, this one is rolled back.
    const row = await tx.one<{ user_num: UserRef }>(
      `with spent as (update registration_tokens set uses = uses + 1 where token_hash = $4)
       insert into users (user_id, password_hash, created_ts) values ($1, $2, $3)
       on conflict (user_id) do nothing returning user_num`,
      userId,
      passwordHash,
      now,
      registrationTokenHash ?? null,
    )
    if (row === undefined) throw nameTaken()
    await trackAwaited(tx, userId, row.user_num)
    const created = { userRef: row.user_num, userId, passwordHash }
    if (login !== undefined) await openSessionIn(core, tx, { ...login, account: created })
    return created
  })
}

export async function findAccount(db: Queries, userId: UserId): Promise<Account | undefined> {
  const row = await db.one<{ user_num: UserRef; password_hash: string; deactivated_ts: number | null }>(
    `select user_num, password_hash, deactivated_ts from users where user_id = $1`,
    userId,
  )
  if (row === undefined) return undefined
  const account = { userRef: row.user_num, userId, passwordHash: row.password_hash }
  return row.deactivated_ts === null ? account : { ...account, isDeactivated: true }
}

type TokenRow = { uses: number; uses_allowed: number | null; expires_ts: number | null }

export async function registrationTokenValid(db: Queries, tokenHash: string, now: number): Promise<boolean> {
  const row = await db.one<TokenRow>(
    `select uses, uses_allowed, expires_ts from registration_tokens where token_hash = $1`,
    tokenHash,
  )
  return isUsable(row && toToken(row), now)
}

/** Locks the token: of two accounts that spend its last use at once, the second waits and finds it spent. */
async function lockRegistrationFacts(
  tx: Transaction,
  userId: UserId,
  tokenHash: string,
): Promise<Parameters<typeof requireRegistrable>[0]> {
  const row = await tx.one<{ name_taken: boolean; has_token: boolean } & TokenRow>(
    `with token as (
       select uses, uses_allowed, expires_ts from registration_tokens where token_hash = $2 for update)
     select exists (select 1 from users where user_id = $1) as name_taken, uses is not null as has_token,
       uses, uses_allowed, expires_ts
     from (select 1) as one left join token on true`,
    userId,
    tokenHash,
  )
  if (row === undefined) throw new Error('a statement that always has a row returned none')
  return { nameTaken: row.name_taken, token: { stored: row.has_token ? toToken(row) : undefined } }
}

function toToken(row: TokenRow): StoredRegistrationToken {
  return {
    uses: row.uses,
    usesAllowed: row.uses_allowed ?? undefined,
    expiresTs: row.expires_ts ?? undefined,
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

export function replaceHash(
  core: Core,
  { userRef, from, to }: Parameters<AccountStore['replaceHash']>[0],
): Promise<void> {
  return write(core, async (tx) => {
    const sql = `update users set password_hash = $3 where user_num = $1 and password_hash = $2`
    await tx.run(sql, userRef, from, to)
  })
}

export function setPassword(
  core: Core,
  { session, passwordHash, endOthers, finishes, now }: Parameters<AccountStore['setPassword']>[0],
): Promise<void> {
  return write(core, async (tx) => {
    await finishAuth(tx, finishes)
    const others = await lockChosen(tx, session, { kind: 'others', than: session.deviceRef })
    await tx.run(`update users set password_hash = $2 where user_num = $1`, others.user, passwordHash)
    if (endOthers) await removeInTransaction(tx, others, now)
  })
}
