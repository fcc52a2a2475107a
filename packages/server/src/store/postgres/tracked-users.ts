/**
 * Tracked device lists (devices/tracking.ts), and the lists that changed. A change of a user's list concerns all
 * observers of that user (users.list_pos). One that a single observer can see has its position in the row of the pair
 * (tracked_users.pos). Names without an account are in awaited_users.
 *
 * A user who began to await a name while its account is created would wait without end. So awaiting a name takes the
 * lock of names shared, and creating an account takes it exclusively.
 */
import type { UserId } from '@latchkey/protocol'
import { type AskedUser, decideTracking, MAX_AWAITED, type Tracking } from '../../devices/tracking.ts'
import type { Position, Session, UserRef } from '../../session.ts'
import { type Core, write } from './core.ts'
import type { Queries, Transaction } from './database.ts'
import { requireToken } from './session-device.ts'

/** One of the advisory locks of this program. */
const NAMES_LOCK = 0x6c6b_0001

/** A query for tracked users only, the usual case, costs one look-up and no commit. */
export async function trackUsers(core: Core, session: Session, userIds: readonly UserId[]): Promise<void> {
  const observer = session.userRef
  const seen = await readTracking(core.db, observer, userIds)
  if (seen.targets.length === 0 && seen.names.length === 0) return
  await write(core, async (tx) => {
    await tx.run(`select pg_advisory_xact_lock_shared($1, hashtext(current_schema()))`, NAMES_LOCK)
    // The list belongs to the user: it may change after the session has ended.
    await requireToken(tx, session, 'unlocked')
    // An account may have been created since the first look-up.
    const { targets, names } = await readTracking(tx, observer, userIds)
    await track(tx, observer, targets)
    await wait(tx, observer, names)
  })
}

/** Tracked users and the observer are not returned by the statement, because they change nothing. */
async function readTracking(db: Queries, observer: UserRef, userIds: readonly UserId[]): Promise<Tracking> {
  const rows = await db.all<{ user_id: UserId; user_num: UserRef | null; is_awaited: boolean }>(
    `select wanted.user_id, user_num, awaited.observer_num is not null as is_awaited
     from unnest($2::text[]) with ordinality as wanted (user_id, i)
     left join users using (user_id)
     left join tracked_users as tracked on tracked.observer_num = $1 and target_num = user_num
     left join awaited_users as awaited
       on user_num is null and awaited.observer_num = $1 and awaited.user_id = wanted.user_id
     where user_num is null or (user_num <> $1 and tracked.observer_num is null)
     order by i`,
    observer,
    userIds,
  )
  const asked = rows.map(
    ({ user_id: userId, user_num: userRef, is_awaited: awaited }): AskedUser =>
      userRef === null ? { kind: 'name', userId, awaited } : { kind: 'account', userRef, tracked: false },
  )
  return decideTracking(observer, asked)
}

/**
 * Waits for changes of these lists that have read their observers already: the query that follows reads those changes,
 * and later ones find the new observer. In the order of the users, so that no two transactions deadlock.
 */
async function track(tx: Transaction, observer: UserRef, targets: readonly UserRef[]): Promise<void> {
  if (targets.length === 0) return
  await tx.run(
    `insert into tracked_users (observer_num, target_num)
     select $1, user_num from (
       select user_num from users where user_num = any($2::bigint[]) order by user_num for key share) as targets
     on conflict (observer_num, target_num) do nothing`,
    observer,
    targets,
  )
}

/**
 * Inserts in the order of the names (devices/tracking.ts), which is that of the index: two transactions with the same
 * rows do not deadlock.
 */
async function wait(tx: Transaction, observer: UserRef, names: readonly UserId[]): Promise<void> {
  if (names.length === 0) return
  await tx.run(
    `insert into awaited_users (user_id, observer_num)
     select user_id, $1 from unnest($2::text[]) with ordinality as awaited (user_id, i) order by i
     on conflict (user_id, observer_num) do nothing`,
    observer,
    names,
  )
  await tx.run(
    `delete from awaited_users where awaited_num in
       (select awaited_num from awaited_users where observer_num = $1 order by awaited_num desc offset $2)`,
    observer,
    MAX_AWAITED,
  )
}

/**
 * Makes the users who awaited this name track its account, so that its first keys are a change. Inside the transaction
 * that creates the account, after the row of the user: without keys no position is needed.
 */
export async function trackAwaited(tx: Transaction, userId: UserId, target: UserRef): Promise<void> {
  await tx.run(`select pg_advisory_xact_lock($1, hashtext(current_schema()))`, NAMES_LOCK)
  await tx.run(
    `with awaited as (delete from awaited_users where user_id = $2 returning observer_num)
     insert into tracked_users (observer_num, target_num) select observer_num, $1 from awaited
     on conflict (observer_num, target_num) do nothing`,
    target,
    userId,
  )
}

/** `since` -1 means everyone whom the user tracks, and the user. */
export async function changedSince(
  db: Queries,
  user: UserRef,
  since: Position,
  upTo: Position,
): Promise<readonly UserId[]> {
  const rows = await db.all<{ user_id: UserId }>(
    `select user_id from users where user_num = $1 and list_pos > $2 and list_pos <= $3
     union
     select user_id from tracked_users join users on user_num = target_num
     where observer_num = $1 and list_pos > $2 and list_pos <= $3
     union
     select user_id from tracked_users join users on user_num = target_num
     where observer_num = $1 and pos > $2 and pos <= $3`,
    user,
    since,
    upTo,
  )
  return rows.map((row) => row.user_id)
}
