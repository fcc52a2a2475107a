/** Accounts, their passwords, and the registration tokens with which they are created. */
import type { UserId } from '@latchkey/protocol'
import type { Account, AccountStore, NewAccount, NewRegistrationToken } from '../../accounts/port.ts'
import { isUsable, requireRegistrable, type StoredRegistrationToken } from '../../accounts/registration.ts'
import type { UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import type { Reader, Transaction } from './database.ts'
import { finishAuth } from './auth-sessions.ts'
import { removeChosen, removing } from './remove-devices.ts'
import { proveSession } from './session-device.ts'
import { openSessionIn } from './sessions.ts'
import { trackAwaited } from './tracked-users.ts'

export function createAccount(core: Core, account: NewAccount): Promise<Account> {
  const { login, finishes } = account
  return core.queue.guarded((tx) => {
    finishAuth(tx, finishes)
    const created = insertAccount(tx, account)
    if (login !== undefined) openSessionIn(core, tx, { ...login, account: created })
    return created
  })
}

function insertAccount(tx: Transaction, account: NewAccount): Account {
  const { userId, passwordHash, registrationTokenHash, now } = account
  requireRegistrable(
    {
      nameTaken: findAccount(tx, userId) !== undefined,
      ...(registrationTokenHash !== undefined && {
        token: { stored: findRegistrationToken(tx, registrationTokenHash) },
      }),
    },
    now,
  )
  if (registrationTokenHash !== undefined) spendRegistrationToken(tx, registrationTokenHash)
  const userRef = tx.insert(
    `insert into users (user_id, password_hash, created_ts) values (?, ?, ?)`,
    userId,
    passwordHash,
    now,
  )
  trackAwaited(tx, userId, userRef as UserRef)
  return { userRef: userRef as UserRef, userId, passwordHash }
}

export function findAccount(db: Reader, userId: UserId): Account | undefined {
  const row = db.one<{ user_num: UserRef; password_hash: string; deactivated_ts: number | null }>(
    `select user_num, password_hash, deactivated_ts from users where user_id = ?`,
    userId,
  )
  if (row === undefined) return undefined
  const account = { userRef: row.user_num, userId, passwordHash: row.password_hash }
  return row.deactivated_ts === null ? account : { ...account, isDeactivated: true }
}

export function registrationTokenValid(core: Core, tokenHash: string, now: number): boolean {
  return isUsable(findRegistrationToken(core.db, tokenHash), now)
}

function findRegistrationToken(db: Reader, hash: string): StoredRegistrationToken | undefined {
  const row = db.one<{ uses: number; uses_allowed: number | null; expires_ts: number | null }>(
    `select uses, uses_allowed, expires_ts from registration_tokens where token_hash = ?`,
    hash,
  )
  return (
    row && {
      uses: row.uses,
      usesAllowed: row.uses_allowed ?? undefined,
      expiresTs: row.expires_ts ?? undefined,
    }
  )
}

function spendRegistrationToken(tx: Transaction, tokenHash: string): void {
  tx.run(`update registration_tokens set uses = uses + 1 where token_hash = ?`, tokenHash)
}

export function createRegistrationToken(core: Core, token: NewRegistrationToken): Promise<void> {
  return core.queue.guarded((tx) => {
    tx.run(
      `insert into registration_tokens (token_hash, uses_allowed, expires_ts, created_ts) values (?, ?, ?, ?)`,
      token.tokenHash,
      token.usesAllowed ?? null,
      token.expiresTs ?? null,
      token.now,
    )
  })
}

export function replaceHash(
  core: Core,
  { userRef, from, to }: Parameters<AccountStore['replaceHash']>[0],
): Promise<void> {
  return core.queue.guarded((tx) => {
    tx.run(`update users set password_hash = ? where user_num = ? and password_hash = ?`, to, userRef, from)
  })
}

export function setPassword(
  core: Core,
  { session, passwordHash, endOthers, finishes, now }: Parameters<AccountStore['setPassword']>[0],
): Promise<void> {
  const { userRef, deviceRef } = session
  const removal = endOthers ? removing(core, userRef, { kind: 'others', than: deviceRef }) : undefined
  return core.queue.guarded((tx) => {
    finishAuth(tx, finishes)
    const proved = proveSession(tx, session)
    tx.run(`update users set password_hash = ? where user_num = ?`, passwordHash, userRef)
    if (removal !== undefined) removeChosen(core, tx, proved.session.userRef, removal.chosen(), now)
  }, removal)
}
