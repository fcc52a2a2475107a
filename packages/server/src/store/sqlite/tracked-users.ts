/**
 * Tracked device lists (devices/tracking.ts), and the lists that changed. A change of a user's list concerns all
 * observers of that user (users.list_pos). One that a single observer can see has its position in the row of the pair
 * (tracked_users.pos). Names without an account are in awaited_users.
 */
import type { UserId } from '@latchkey/protocol'
import { type AskedUser, decideTracking, MAX_AWAITED, type Tracking } from '../../devices/tracking.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import { requireDevice } from './session-device.ts'

/** A query for users who are all tracked already, the usual case, costs a look-up each and no commit. */
export function trackUsers(core: Core, session: Session, userIds: readonly UserId[]): Promise<void> {
  const seen = trackingOf(core, session, userIds)
  if (seen.targets.length === 0 && seen.names.length === 0) return Promise.resolve()
  return core.queue.guarded(() => {
    requireDevice(core, session)
    const observer = session.userRef
    // An account may have been created since.
    const { targets, names } = trackingOf(core, session, userIds)
    core.news.forgetUser(observer)
    for (const target of targets) {
      core.db.run(`insert into tracked_users (observer_num, target_num) values (?, ?)`, observer, target)
    }
    for (const name of names) {
      core.db.run(`insert into awaited_users (user_id, observer_num) values (?, ?)`, name, observer)
    }
    if (names.length > 0) forgetOldestAwaited(core, observer)
  })
}

function trackingOf(core: Core, { userRef }: Session, userIds: readonly UserId[]): Tracking {
  const asked = userIds.map((userId): AskedUser => {
    const account = findTracked(core, userRef, userId)
    return account === undefined
      ? { kind: 'name', userId, awaited: isAwaited(core, userRef, userId) }
      : { kind: 'account', userRef: account.user_num, tracked: account.tracked === 1 }
  })
  return decideTracking(userRef, asked)
}

function findTracked(
  { db }: Core,
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

function isAwaited({ db }: Core, observer: UserRef, name: UserId): boolean {
  const sql = `select 1 from awaited_users where user_id = ? and observer_num = ?`
  return db.one<unknown>(sql, name, observer) !== undefined
}

function forgetOldestAwaited({ db }: Core, observer: UserRef): void {
  db.run(
    `delete from awaited_users where awaited_num in
       (select awaited_num from awaited_users where observer_num = ? order by awaited_num desc limit -1 offset ?)`,
    observer,
    MAX_AWAITED,
  )
}

/**
 * Makes the users who awaited this name track its account, so that its first keys are a change. Inside the transaction
 * that creates the account, which may be another process's: without keys no position is needed.
 */
export function trackAwaited({ db }: Pick<Core, 'db'>, userId: UserId, target: UserRef): void {
  db.run(
    `insert into tracked_users (observer_num, target_num)
     select observer_num, ? from awaited_users where user_id = ?`,
    target,
    userId,
  )
  db.run(`delete from awaited_users where user_id = ?`, userId)
}

/** `since` -1 means everyone whom the user tracks, and the user. */
export function changedSince(core: Core, user: UserRef, since: Position, upTo: Position): readonly UserId[] {
  return core.db
    .all<{ user_id: UserId }>(
      `select user_id from users where user_num = ?1 and list_pos > ?2 and list_pos <= ?3
       union
       select user_id from tracked_users join users on user_num = target_num
       where observer_num = ?1 and ((list_pos > ?2 and list_pos <= ?3) or (pos > ?2 and pos <= ?3))`,
      user,
      since,
      upTo,
    )
    .map((row) => row.user_id)
}

/** Marks a user's device list as changed for one observer alone, possibly the same user. Inside a transaction. */
export function listChangedFor(core: Core, observer: UserRef, target: UserRef): void {
  core.db.run(
    `insert into tracked_users (observer_num, target_num, pos) values (?1, ?2, ?3)
     on conflict do update set pos = ?3`,
    observer,
    target,
    core.positions.next(),
  )
  core.wakes.user(observer)
}
