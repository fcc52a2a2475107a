/**
 * Device lists without rooms: who has asked for whose keys, and whose lists have changed since. A change of a user's
 * list concerns all her observers (users.list_pos); one that a single observer alone can see has its position in
 * the pair's own row (tracked_users.pos). Who asked for a name that nobody has waits for it (awaited_users).
 */
import type { UserId } from '@latchkey/protocol'
import type { Position, Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import { requireDevice } from './session-device.ts'

/** How many names that nobody has yet one user may wait for; over it the oldest are forgotten. */
const MAX_AWAITED = 1000

/** A query for users who are all known already, the usual one, costs a look-up each and no commit. */
export function trackUsers(core: Core, session: Session, userIds: readonly UserId[]): Promise<void> {
  const seen = split(core, session, userIds)
  if (seen.targets.length === 0 && seen.names.length === 0) return Promise.resolve()
  return core.queue.guarded(() => {
    requireDevice(core, session)
    const observer = session.userRef
    // Anew: an account may have been made since.
    const { targets, names } = split(core, session, userIds)
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

type Untracked = { readonly targets: readonly UserRef[]; readonly names: readonly UserId[] }

/** Those not tracked yet: accounts by their number, names without one, of which no more than are kept, as they are. */
function split(core: Core, { userRef }: Session, userIds: readonly UserId[]): Untracked {
  const targets: UserRef[] = []
  const names: UserId[] = []
  let nameless = 0
  for (const userId of userIds) {
    const target = findUser(core, userId)
    if (target === undefined) {
      if (++nameless <= MAX_AWAITED && !isAwaited(core, userRef, userId)) names.push(userId)
    } else if (target !== userRef && !isTracked(core, userRef, target)) targets.push(target)
  }
  return { targets, names }
}

function findUser({ db }: Core, userId: UserId): UserRef | undefined {
  return db.one<{ user_num: UserRef }>(`select user_num from users where user_id = ?`, userId)?.user_num
}

function isTracked({ db }: Core, observer: UserRef, target: UserRef): boolean {
  const sql = `select 1 from tracked_users where observer_num = ? and target_num = ?`
  return db.one<unknown>(sql, observer, target) !== undefined
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
 * Whoever waited for this name tracks the account that has it now: what it publishes first is a change. Inside the
 * transaction that makes the account, which may be another process's: no position is needed, for there are no keys yet.
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
