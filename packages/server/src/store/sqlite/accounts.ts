/** Accounts, their passwords, and the registration tokens that make them. */
import type { UserId } from '@latchkey/protocol'
import type { Account, AccountStore, NewAccount, NewRegistrationToken } from '../../accounts/port.ts'
import { MatrixError } from '../../matrix-error.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import { devicesOf, removeInTransaction, removing } from './remove-devices.ts'
import { requireDevice } from './session-device.ts'
import { trackAwaited } from './tracked-users.ts'

/** What needs neither pools nor positions: it may run in another process beside the server (`latchkey user add`). */
type Beside = Pick<Core, 'db' | 'queue'>

export function createAccount(core: Beside, account: NewAccount): Promise<Account> {
  return core.queue.guarded(() => {
    const { userId, passwordHash, registrationTokenHash, now } = account
    if (findAccount(core, userId) !== undefined) {
      throw new MatrixError(400, 'M_USER_IN_USE', 'This user name is taken.')
    }
    if (registrationTokenHash !== undefined) spendRegistrationToken(core, registrationTokenHash, now)
    const userRef = core.db.insert(
      `insert into users (user_id, password_hash, created_ts) values (?, ?, ?)`,
      userId,
      passwordHash,
      now,
    )
    trackAwaited(core, userId, userRef as UserRef)
    return { userRef: userRef as UserRef, userId, passwordHash }
  })
}

export function findAccount(core: Pick<Core, 'db'>, userId: UserId): Account | undefined {
  const row = core.db.one<{ user_num: UserRef; password_hash: string }>(
    `select user_num, password_hash from users where user_id = ?`,
    userId,
  )
  return row && { userRef: row.user_num, userId, passwordHash: row.password_hash }
}

/** What makes a registration token good for one more account, given its hash and the time. */
const TOKEN_HOLDS = `token_hash = ?1 and (uses_allowed is null or uses < uses_allowed)
  and (expires_ts is null or expires_ts > ?2)`

export function registrationTokenValid(core: Core, tokenHash: string, now: number): boolean {
  return core.db.one(`select 1 from registration_tokens where ${TOKEN_HOLDS}`, tokenHash, now) !== undefined
}

function spendRegistrationToken(core: Beside, tokenHash: string, now: number): void {
  const spent = core.db.run(
    `update registration_tokens set uses = uses + 1 where ${TOKEN_HOLDS}`,
    tokenHash,
    now,
  )
  if (spent === 0) {
    throw new MatrixError(401, 'M_FORBIDDEN', 'The registration token is used up, has expired or is unknown.')
  }
}

export function createRegistrationToken(core: Beside, token: NewRegistrationToken): Promise<void> {
  return core.queue.guarded(() => {
    core.db.run(
      `insert into registration_tokens (token_hash, uses_allowed, expires_ts, created_ts) values (?, ?, ?, ?)`,
      token.tokenHash,
      token.usesAllowed ?? null,
      token.expiresTs ?? null,
      token.now,
    )
  })
}

export function setPassword(
  core: Core,
  { session, passwordHash, endOthers, now }: Parameters<AccountStore['setPassword']>[0],
): Promise<void> {
  const others = (): DeviceRef[] => (endOthers ? otherDevices(core, session) : [])
  return core.queue.guarded(
    (tx) => {
      requireDevice(core, session)
      core.db.run(`update users set password_hash = ? where user_num = ?`, passwordHash, session.userRef)
      removeInTransaction(core, tx, session.userRef, others(), now)
    },
    removing(core, others),
  )
}

function otherDevices(core: Core, session: Session): DeviceRef[] {
  return devicesOf(core, session.userRef)
    .map((device) => device.device_num)
    .filter((ref) => ref !== session.deviceRef)
}
