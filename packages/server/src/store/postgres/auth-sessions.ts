/**
 * Sessions of user-interactive authentication (accounts/auth-session.ts). They are not witnessed: nothing depends on
 * them.
 */
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

export function authSessionStore({ db }: Core): AuthSessionStore {
  return {
    add: (session) => db.transaction((tx) => addSession(tx, session)),
    find: (idHash, now) =>
      db.one<StoredAuthSession>(
        `select operation, sealed from auth_sessions where id_hash = $1 and expires_ts > $2`,
        idHash,
        now,
      ),
  }
}

async function addSession(tx: Transaction, session: NewAuthSession): Promise<void> {
  const { idHash, owner, operation, sealed, expiresTs, now } = session
  await forgetAuthSessions(tx, now)
  await tx.run(
    `insert into auth_sessions (id_hash, owner_kind, owner, operation, sealed, expires_ts) values ($1, $2, $3, $4, $5, $6)`,
    idHash,
    owner.kind,
    owner.name,
    operation,
    sealed,
    expiresTs,
  )
  const counts = await tx.one<{ ofOwner: number; ofKind: number }>(
    `select count(*) filter (where owner = $2) as "ofOwner", count(*) as "ofKind"
     from auth_sessions where owner_kind = $1`,
    owner.kind,
    owner.name,
  )
  const drop = sessionsToDrop(owner.kind, counts ?? { ofOwner: 0, ofKind: 0 })
  if (drop.ofOwner > 0) await dropOldest(tx, owner.kind, owner.name, drop.ofOwner)
  if (drop.ofLargest === 0) return
  const largest = await tx.one<{ owner: string }>(
    `select owner from auth_sessions where owner_kind = $1 group by owner order by count(*) desc, min(session_num) limit 1`,
    owner.kind,
  )
  if (largest !== undefined) await dropOldest(tx, owner.kind, largest.owner, drop.ofLargest)
}

async function dropOldest(tx: Transaction, kind: string, owner: string, count: number): Promise<void> {
  await tx.run(
    `delete from auth_sessions where session_num in
       (select session_num from auth_sessions where owner_kind = $1 and owner = $2
        order by session_num limit $3 for update skip locked)`,
    kind,
    owner,
    count,
  )
}

/**
 * Ends a session with the answer of its operation. The first lock of the operation's transaction: a concurrent request
 * of the same session waits here, and finds it finished.
 *
 * @throws {AuthSessionEnded}
 */
export async function finishAuth(tx: Transaction, finishes: FinishedAuth | undefined): Promise<void> {
  if (finishes === undefined) return
  const { idHash, sealed, expiresTs, now } = finishes
  const changed = await tx.run(
    `update auth_sessions set is_finished = true, sealed = $1, expires_ts = $2
     where id_hash = $3 and not is_finished and expires_ts > $4`,
    sealed,
    expiresTs,
    idHash,
    now,
  )
  if (changed === 0) throw new AuthSessionEnded()
}

export async function forgetAuthSessions(tx: Transaction, now: number): Promise<void> {
  await tx.run(
    `delete from auth_sessions where session_num in
       (select session_num from auth_sessions where expires_ts <= $1 limit ${EXPIRED_PER_STEP} for update skip locked)`,
    now,
  )
}
