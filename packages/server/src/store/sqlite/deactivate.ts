/** Deactivation of an account (accounts/deactivate.ts). */
import { DELETED_WITH_ACCOUNT, type DeletedWithAccount, NO_PASSWORD } from '../../accounts/deactivate.ts'
import type { Deactivation } from '../../accounts/port.ts'
import type { UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, deviceListChanged } from './core.ts'
import type { Transaction } from './database.ts'
import { removeChosen, removing } from './remove-devices.ts'
import { proveSession } from './session-device.ts'

export function deactivateAccount(core: Core, deactivation: Deactivation): Promise<void> {
  const { userRef, session, finishes, now } = deactivation
  const removal = removing(core, userRef, { kind: 'all' })
  return core.queue.guarded((tx) => {
    finishAuth(tx, finishes)
    if (session !== undefined) proveSession(tx, session)
    removeChosen(core, tx, userRef, removal.chosen(), now)
    for (const belonging of DELETED_WITH_ACCOUNT) DELETE[belonging](tx, userRef)
    tx.run(
      `update users set password_hash = ?, deactivated_ts = coalesce(deactivated_ts, ?) where user_num = ?`,
      NO_PASSWORD,
      now,
      userRef,
    )
    core.latestPositions.forgetUser(userRef)
    deviceListChanged(core, tx, userRef)
  }, removal)
}

const DELETE: Readonly<Record<DeletedWithAccount, (tx: Transaction, user: UserRef) => void>> = {
  cross_signing_keys: from('cross_signing_keys', 'user_num'),
  signatures_on_its_keys: from('key_signatures', 'user_num'),
  signatures_by_it: from('key_signatures', 'signer_num'),
  filters: from('filters', 'user_num'),
  account_data: from('account_data', 'user_num'),
  tracked_users: from('tracked_users', 'observer_num'),
  awaited_users: from('awaited_users', 'observer_num'),
  known_networks: from('known_networks', 'user_num'),
  auth_sessions: (tx, user) =>
    void tx.run(`delete from auth_sessions where owner_kind = 'user' and owner = ?`, String(user)),
}

function from(table: string, column: string): (tx: Transaction, user: UserRef) => void {
  return (tx, user) => void tx.run(`delete from ${table} where ${column} = ?`, user)
}
