/** Filters and global account data of a user. Writes are counted and numbered under the lock of the user's row. */
import type { Session, UserRef } from '../../session.ts'
import { enforceAccountDataLimits } from '../../sync/account-data.ts'
import { decideFilter, type FilterFacts, type NewFilter, parseFilterId } from '../../sync/filters.ts'
import { type Core, write } from './core.ts'
import type { Queries } from './database.ts'
import { lockUser, requireToken } from './session-device.ts'

/** A filter that is known, the usual case, costs a look-up and no commit. */
export async function putFilter(core: Core, session: Session, json: string): Promise<string> {
  const user = session.userRef
  const known = await filterIdOf(core.db, user, json)
  if (known !== undefined) return String(known)
  return write(core, async (tx) => {
    await lockUser(tx, user)
    await requireToken(tx, session)
    const decision = decideFilter(await filterFacts(tx, user, json), core.limits)
    if (decision.kind === 'add') await addFilter(tx, user, json, decision)
    return String(decision.filterId)
  })
}

async function filterIdOf(db: Queries, user: UserRef, json: string): Promise<number | undefined> {
  const sql = `select filter_id from filters where user_num = $1 and json = $2`
  return (await db.one<{ filter_id: number }>(sql, user, json))?.filter_id
}

async function filterFacts(tx: Queries, user: UserRef, json: string): Promise<FilterFacts> {
  const row = await tx.one<{ same: number | null; newest: number | null }>(
    `select max(filter_id) filter (where json = $2) as same, max(filter_id) as newest
     from filters where user_num = $1`,
    user,
    json,
  )
  return { same: row?.same ?? undefined, newest: row?.newest ?? undefined }
}

async function addFilter(
  tx: Queries,
  user: UserRef,
  json: string,
  { filterId, dropUpTo }: NewFilter,
): Promise<void> {
  await tx.run(`insert into filters (user_num, filter_id, json) values ($1, $2, $3)`, user, filterId, json)
  if (dropUpTo !== undefined)
    await tx.run(`delete from filters where user_num = $1 and filter_id <= $2`, user, dropUpTo)
}

export async function findFilter({ db }: Core, user: UserRef, filterId: string): Promise<string | undefined> {
  const number = parseFilterId(filterId)
  if (number === undefined) return undefined
  const sql = `select json from filters where user_num = $1 and filter_id = $2`
  return (await db.one<{ json: string }>(sql, user, number))?.json
}

export function putAccountData(core: Core, session: Session, type: string, content: string): Promise<void> {
  const user = session.userRef
  return write(core, async (tx) => {
    await lockUser(tx, user)
    await requireToken(tx, session)
    enforceAccountDataLimits(await otherAccountData(tx, user, type), { type, content }, core.limits)
    tx.changes.write(1, (last, position) =>
      last.run(
        `insert into account_data (user_num, type, content, pos) values ($1, $2, $3, $4)
         on conflict (user_num, type) do update set content = excluded.content, pos = excluded.pos`,
        user,
        type,
        content,
        position(),
      ),
    )
    tx.changes.wakeUser(user)
  })
}

async function otherAccountData(
  tx: Queries,
  user: UserRef,
  type: string,
): Promise<{ count: number; bytes: number }> {
  const others = await tx.one<{ count: number; bytes: number }>(
    `select count(*) as count, coalesce(sum(octet_length(type) + octet_length(content)), 0)::bigint as bytes
     from account_data where user_num = $1 and type <> $2`,
    user,
    type,
  )
  return others ?? { count: 0, bytes: 0 }
}

export async function accountData({ db }: Core, user: UserRef, type: string): Promise<string | undefined> {
  const sql = `select content from account_data where user_num = $1 and type = $2`
  return (await db.one<{ content: string }>(sql, user, type))?.content
}
