/** Sessions of user-interactive authentication (accounts/auth-session.ts). */
import { sessionsToDrop } from '../../accounts/auth-session-bounds.ts'
import {
  AuthSessionEnded,
  type AuthSessionStore,
  type FinishedAuth,
  type NewAuthSession,
  type StoredAuthSession,
} from '../../accounts/port.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'

/** Expired sessions deleted with each new one; the sweep deletes the rest. */
const EXPIRED_PER_STEP = 100

export function authSessionStore(core: Core): AuthSessionStore {
  return {
    add: (session) => addSession(core, session),
    find: async (idHash, now) =>
      core.db.one<StoredAuthSession>(
        `select operation, sealed from auth_sessions where id_hash = ? and expires_ts > ?`,
        idHash,
        now,
      ),
  }
}

function addSession(core: Core, session: NewAuthSession): Promise<void> {
  const { idHash, owner, operation, sealed, expiresTs, now } = session
  return core.queue.guarded((tx) => {
    forgetAuthSessions(tx, now)
    tx.run(
      `insert into auth_sessions (id_hash, owner_kind, owner, operation, sealed, expires_ts) values (?, ?, ?, ?, ?, ?)`,
      idHash,
      owner.kind,
      owner.name,
      operation,
      sealed,
      expiresTs,
    )
    makeRoom(tx, owner)
  })
}

function makeRoom(tx: Transaction, { kind, name }: NewAuthSession['owner']): void {
  const counts = tx.one<{ ofOwner: number; ofKind: number }>(
    `select count(*) filter (where owner = ?2) as ofOwner, count(*) as ofKind from auth_sessions where owner_kind = ?1`,
    kind,
    name,
  )
  const drop = sessionsToDrop(kind, counts ?? { ofOwner: 0, ofKind: 0 })
  if (drop.ofOwner > 0) dropOldest(tx, kind, name, drop.ofOwner)
  if (drop.ofLargest === 0) return
  const largest = tx.one<{ owner: string }>(
    `select owner from auth_sessions where owner_kind = ? group by owner order by count(*) desc, min(session_num) limit 1`,
    kind,
  )
  if (largest !== undefined) dropOldest(tx, kind, largest.owner, drop.ofLargest)
}

function dropOldest(tx: Transaction, kind: string, owner: string, count: number): void {
  tx.run(
    `delete from auth_sessions where session_num in
       (select session_num from auth_sessions where owner_kind = ? and owner = ? order by session_num limit ?)`,
    kind,
    owner,
    count,
  )
}

/**
 * Ends a session with the answer of its operation; first of all in the operation's transaction.
 *
 * @throws {AuthSessionEnded}
 */
export function finishAuth(tx: Transaction, finishes: FinishedAuth | undefined): void {
  if (finishes === undefined) return
  const { idHash, sealed, expiresTs, now } = finishes
  const changed = tx.run(
    `update auth_sessions set is_finished = 1, sealed = ?, expires_ts = ?
     where id_hash = ? and is_finished = 0 and expires_ts > ?`,
    sealed,
    expiresTs,
    idHash,
    now,
  )
  if (changed === 0) throw new AuthSessionEnded()
}

export function forgetAuthSessions(tx: Transaction, now: number): void {
  tx.run(
    `delete from auth_sessions where session_num in
       (select session_num from auth_sessions where expires_ts <= ? limit ${EXPIRED_PER_STEP})`,
    now,
  )
}
