/** Deactivation of an account (accounts/deactivate.ts). */
import { DELETED_WITH_ACCOUNT, type DeletedWithAccount, NO_PASSWORD } from '../../accounts/deactivate.ts'
import type { Deactivation } from '../../accounts/port.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, write } from './core.ts'
import type { Transaction } from './database.ts'
import type { LockedUser } from './locks.ts'
import { lockChosen, lockChosenOf, removeInTransaction } from './remove-devices.ts'

export function deactivateAccount(core: Core, deactivation: Deactivation): Promise<void> {
  const { userRef, session, finishes, now } = deactivation
  return write(core, async (tx) => {
    await finishAuth(tx, finishes)
    const all = { kind: 'all' } as const
    const chosen =
      session === undefined ? await lockChosenOf(tx, userRef, all) : await lockChosen(tx, session, all)
    await removeInTransaction(tx, chosen, now)
    const { user } = chosen
    for (const belonging of DELETED_WITH_ACCOUNT) await DELETE[belonging](tx, user)
    await tx.run(
      `update users set password_hash = $2, deactivated_ts = coalesce(deactivated_ts, $3) where user_num = $1`,
      user,
      NO_PASSWORD,
      now,
    )
    tx.changes.listChanged(user)
  })
}

type Delete = (tx: Transaction, user: LockedUser) => Promise<unknown>

const DELETE: Readonly<Record<DeletedWithAccount, Delete>> = {
  cross_signing_keys: from('cross_signing_keys', 'user_num'),
  signatures_on_its_keys: from('key_signatures', 'user_num'),
  signatures_by_it: from('key_signatures', 'signer_num'),
  filters: from('filters', 'user_num'),
  account_data: from('account_data', 'user_num'),
  tracked_users: from('tracked_users', 'observer_num'),
  awaited_users: from('awaited_users', 'observer_num'),
  known_networks: from('known_networks', 'user_num'),
  // Sessions are locked before users (changes.ts). The operation that has locked one waits for this user, will find
  // that its token has ended, and leaves a session that no one can use until the sweep.
  auth_sessions: (tx, user) =>
    tx.run(
      `delete from auth_sessions where session_num in
         (select session_num from auth_sessions where owner_kind = 'user' and owner = $1::text
          for update skip locked)`,
      String(user),
    ),
}

function from(table: string, column: string): Delete {
  return (tx, user) => tx.run(`delete from ${table} where ${column} = $1`, user)
}
