/**
 * Device lists without rooms: who has asked for whose keys, and whose lists have changed since. A change of a user's
 * list concerns all her observers (users.list_pos); one that a single observer alone can see has its position in
 * the pair's own row (tracked_users.pos). Who asked for a name that nobody has waits for it (awaited_users).
 *
 * Nobody may begin to wait for a name while its account is being made, or would wait for ever: waiting takes the lock of
 * names shared, making an account takes it alone.
 */
import type { UserId } from '@latchkey/protocol'
import type { Position, Session, UserRef } from '../../session.ts'
import { type Core, write } from './core.ts'
import type { Queries } from './database.ts'
import { requireToken } from './session-device.ts'

/** How many names that nobody has yet one user may wait for; over it the oldest are forgotten. */
const MAX_AWAITED = 1000
/** Of all advisory locks of this program. */
const NAMES_LOCK = 0x6c6b_0001

/** A query for users who are all known already, the usual one, costs one look-up and no commit. */
export async function trackUsers(core: Core, session: Session, userIds: readonly UserId[]): Promise<void> {
  const observer = session.userRef
  const seen = await split(core.db, observer, userIds)
  if (seen.targets.length === 0 && seen.names.length === 0) return
  await write(core, async (tx) => {
    await tx.run(`select pg_advisory_xact_lock_shared($1, hashtext(current_schema()))`, NAMES_LOCK)
    await requireToken(tx, session)
    // Anew: an account may have been made since.
    const { targets, names } = await split(tx, observer, userIds)
    await track(tx, observer, targets)
    await wait(tx, observer, names)
  })
}

type Untracked = { readonly targets: readonly UserRef[]; readonly names: readonly UserId[] }

/** Those not tracked yet: accounts by their number, names without one, of which no more than are kept, as they are. */
async function split(db: Queries, observer: UserRef, userIds: readonly UserId[]): Promise<Untracked> {
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
  const nameless = rows.filter((row) => row.user_num === null).slice(0, MAX_AWAITED)
  return {
    targets: rows.flatMap((row) => row.user_num ?? []),
    names: nameless.filter((row) => !row.is_awaited).map((row) => row.user_id),
  }
}

/** In the order of the index, as everyone does: two that insert the same rows cannot wait for each other. */
async function track(tx: Queries, observer: UserRef, targets: readonly UserRef[]): Promise<void> {
  if (targets.length === 0) return
  await tx.run(
    `insert into tracked_users (observer_num, target_num)
     select $1, target_num from unnest($2::bigint[]) as target_num order by target_num
     on conflict (observer_num, target_num) do nothing`,
    observer,
    targets,
  )
}

async function wait(tx: Queries, observer: UserRef, names: readonly UserId[]): Promise<void> {
  if (names.length === 0) return
  await tx.run(
    `insert into awaited_users (user_id, observer_num)
     select user_id, $1 from unnest($2::text[]) as user_id order by user_id collate "C"
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
 * Whoever waited for this name tracks the account that has it now: what it publishes first is a change. Inside the
 * transaction that makes the account, after the row of the user: no position is needed, for there are no keys yet.
 */
export async function trackAwaited(tx: Queries, userId: UserId, target: UserRef): Promise<void> {
  await tx.run(`select pg_advisory_xact_lock($1, hashtext(current_schema()))`, NAMES_LOCK)
  await tx.run(
    `with awaited as (delete from awaited_users where user_id = $2 returning observer_num)
     insert into tracked_users (observer_num, target_num) select observer_num, $1 from awaited
     on conflict (observer_num, target_num) do nothing`,
    target,
    userId,
  )
}

/** `since` -1 means everyone the user has asked about, and herself. */
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
