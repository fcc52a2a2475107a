/**
 * Tracked device lists (devices/tracking.ts), and the lists that changed. A change of a user's list concerns all
 * observers of that user (users.list_pos). A change that a single observer can see has its position in the row of the
 * pair (tracked_users.pos). Names without an account are in awaited_users.
 */
import type { UserId } from '@latchkey/protocol'
import { type AskedUser, decideTracking, MAX_AWAITED, type Tracking } from '../../devices/tracking.ts'
import { inTurns } from '../../lib/turns.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import type { Reader, Transaction } from './database.ts'
import { proveSession } from './session-device.ts'

/** Changed lists that are looked at one by one; with more, the lists that the user tracks are. */
const MAX_RECENT = 256

/** Users per turn of the event loop, and per transaction: a few milliseconds. */
const USERS_PER_TURN = 200

/** A query for users who are all tracked, the usual case, costs one read per user and no commit. */
export async function trackUsers(core: Core, session: Session, userIds: readonly UserId[]): Promise<void> {
  const asked: AskedUser[] = []
  for await (const some of inTurns(userIds, USERS_PER_TURN)) {
    asked.push(...some.map((userId) => askedUser(core.db, session, userId)))
  }
  const seen = decideTracking(session.userRef, asked)
  if (seen.names.length > 0) {
    await core.queue.guarded((tx) => {
      const observer = proveObserver(core, tx, session)
      // An account may have been created since.
      const { targets, names } = trackingOf(tx, session, seen.names)
      for (const target of targets) track(tx, observer, target)
      for (const name of names) {
        tx.run(`insert into awaited_users (user_id, observer_num) values (?, ?)`, name, observer)
      }
      forgetOldestAwaited(tx, observer)
    })
  }
  for await (const some of inTurns(seen.targets, USERS_PER_TURN)) {
    await core.queue.guarded((tx) => {
      const observer = proveObserver(core, tx, session)
      for (const target of some) track(tx, observer, target)
    })
  }
}

/** @throws {MatrixError} 401 when the session has ended. */
function proveObserver(core: Core, tx: Transaction, session: Session): UserRef {
  const { userRef } = proveSession(tx, session).session
  core.latestPositions.changedForUser(userRef, core.positions.last)
  return userRef
}

/** Another request of the user may have done it meanwhile. */
function track(tx: Transaction, observer: UserRef, target: UserRef): void {
  tx.run(
    `insert into tracked_users (observer_num, target_num) values (?, ?) on conflict do nothing`,
    observer,
    target,
  )
}

function trackingOf(db: Reader, session: Session, userIds: readonly UserId[]): Tracking {
  return decideTracking(
    session.userRef,
    userIds.map((userId) => askedUser(db, session, userId)),
  )
}

function askedUser(db: Reader, { userRef }: Session, userId: UserId): AskedUser {
  const account = findTracked(db, userRef, userId)
  return account === undefined
    ? { kind: 'name', userId, awaited: isAwaited(db, userRef, userId) }
    : { kind: 'account', userRef: account.user_num, tracked: account.tracked === 1 }
}

function findTracked(
  db: Reader,
  observer: UserRef,
  userId: UserId,
): { readonly user_num: UserRef; readonly tracked: number } | undefined {
  return db.one(
    `select user_num, exists (
       select 1 from tracked_users where observer_num = ? and target_num = user_num) as tracked
     from users where user_id = ?`,
    observer,
    userId,
  )
}

function isAwaited(db: Reader, observer: UserRef, name: UserId): boolean {
  const sql = `select 1 from awaited_users where user_id = ? and observer_num = ?`
  return db.one<unknown>(sql, name, observer) !== undefined
}

function forgetOldestAwaited(tx: Transaction, observer: UserRef): void {
  tx.run(
    `delete from awaited_users where awaited_num in
       (select awaited_num from awaited_users where observer_num = ? order by awaited_num desc limit -1 offset ?)`,
    observer,
    MAX_AWAITED,
  )
}

/**
 * Makes the users who awaited this name track its account, so that its first keys are a change. A new account has no
 * keys and needs no position, so that another process may create it (`latchkey user add`).
 */
export function trackAwaited(tx: Transaction, userId: UserId, target: UserRef): void {
  tx.run(
    `insert into tracked_users (observer_num, target_num)
     select observer_num, ? from awaited_users where user_id = ?`,
    target,
    userId,
  )
  tx.run(`delete from awaited_users where user_id = ?`, userId)
}

/**
 * `since` -1 means everyone whom the user tracks, and the user. A woken sync looks at the few lists that changed since
 * its token, not at everyone whom its user tracks: one change may wake thousands of syncs (issue 11, C2).
 */
export function changedSince(core: Core, user: UserRef, since: Position, upTo: Position): readonly UserId[] {
  const recent = core.db.all<{ user_id: UserId; concerns: number }>(
    `select user_id, user_num = ?1 or exists (
       select 1 from tracked_users where observer_num = ?1 and target_num = user_num) as concerns
     from users indexed by users_by_list_pos where list_pos > ?2 and list_pos <= ?3 limit ${MAX_RECENT + 1}`,
    user,
    since,
    upTo,
  )
  const lists =
    recent.length <= MAX_RECENT
      ? recent.filter(({ concerns }) => concerns === 1)
      : core.db.all<{ user_id: UserId }>(
          `select user_id from users where user_num = ?1 and list_pos > ?2 and list_pos <= ?3
           union
           select user_id from tracked_users join users on user_num = target_num
           where observer_num = ?1 and list_pos > ?2 and list_pos <= ?3`,
          user,
          since,
          upTo,
        )
  const pairs = core.db.all<{ user_id: UserId }>(
    `select user_id from tracked_users indexed by tracked_users_by_pos join users on user_num = target_num
     where observer_num = ?1 and pos > ?2 and pos <= ?3`,
    user,
    Math.max(since, 0),
    upTo,
  )
  return [...new Set([...lists, ...pairs].map((row) => row.user_id))]
}

/** Marks a user's device list as changed for a single observer, who may be the same user. */
export function listChangedFor(core: Core, tx: Transaction, observer: UserRef, target: UserRef): void {
  const position = core.positions.next(tx)
  tx.run(
    `insert into tracked_users (observer_num, target_num, pos) values (?1, ?2, ?3)
     on conflict do update set pos = ?3`,
    observer,
    target,
    position,
  )
  core.wakes.user(tx, observer, position)
}
