/** Filters and global account data of a user. The lock of the user keeps their limits and numbers. */
import type { Session, UserRef } from '../../session.ts'
import { enforceAccountDataLimits } from '../../sync/account-data.ts'
import { decideFilter, type FilterFacts, type NewFilter, parseFilterId } from '../../sync/filters.ts'
import { type Core, write } from './core.ts'
import type { Queries, Transaction } from './database.ts'
import type { LockedUser } from './locks.ts'
import { lockSessionUser } from './session-device.ts'

/** A filter that exists, the usual case, costs one look-up and no commit. */
export async function putFilter(core: Core, session: Session, json: string): Promise<string> {
  const known = await filterIdOf(core.db, session.userRef, json)
  if (known !== undefined) return String(known)
  return write(core, async (tx) => {
    const user = await lockSessionUser(tx, session)
    const decision = decideFilter(await filterFacts(tx, user, json), core.limits)
    if (decision.kind === 'add') await addFilter(tx, user, json, decision)
    return String(decision.filterId)
  })
}

async function filterIdOf(db: Queries, user: UserRef, json: string): Promise<number | undefined> {
  const sql = `select filter_id from filters where user_num = $1 and json = $2`
  return (await db.one<{ filter_id: number }>(sql, user, json))?.filter_id
}

async function filterFacts(tx: Transaction, user: LockedUser, json: string): Promise<FilterFacts> {
  const row = await tx.one<{ same: number | null; newest: number | null }>(
    `select max(filter_id) filter (where json = $2) as same, max(filter_id) as newest
     from filters where user_num = $1`,
    user,
    json,
  )
  return { same: row?.same ?? undefined, newest: row?.newest ?? undefined }
}

async function addFilter(
  tx: Transaction,
  user: LockedUser,
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
  return write(core, async (tx) => {
    const user = await lockSessionUser(tx, session)
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
  tx: Transaction,
  user: LockedUser,
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
