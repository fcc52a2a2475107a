/**
 * Device lists without rooms: who has asked for whose keys, and whose lists have changed since. A change of a user's
 * list concerns all her observers (users.list_pos); one that a single observer alone can see has its position in
 * the pair's own row (tracked_users.pos).
 */
import type { UserId } from '@latchkey/protocol'
import type { Position, UserRef } from '../../session.ts'
import type { Core } from './core.ts'

/** A query for users who are all known already, the usual one, costs a look-up each and no commit. */
export function trackUsers(core: Core, observer: UserRef, targets: readonly UserRef[]): Promise<void> {
  const missing = targets.filter((target) => target !== observer && !isTracked(core, observer, target))
  if (missing.length === 0) return Promise.resolve()
  return core.queue.guarded(() => {
    core.news.forgetUser(observer)
    for (const target of missing) {
      core.db.run(
        `insert into tracked_users (observer_num, target_num) values (?, ?) on conflict do nothing`,
        observer,
        target,
      )
    }
  })
}

function isTracked({ db }: Core, observer: UserRef, target: UserRef): boolean {
  const sql = `select 1 from tracked_users where observer_num = ? and target_num = ?`
  return db.one<unknown>(sql, observer, target) !== undefined
}

/** `since` -1 means everyone the user has asked about, and herself. */
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

/** Marks a user's device list as changed for one observer (herself, for instance) and nobody else. Inside a transaction. */
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
