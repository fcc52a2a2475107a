/** Filters and global account data of a user. */
import type { Session, UserRef } from '../../session.ts'
import { enforceAccountDataLimits } from '../../sync/account-data.ts'
import { decideFilter, type FilterFacts, type NewFilter, parseFilterId } from '../../sync/filters.ts'
import type { Core } from './core.ts'
import type { Reader, Transaction } from './database.ts'
import { proveSession } from './session-device.ts'

/** A filter that exists already, the usual case, costs a read and no commit. */
export function putFilter(core: Core, session: Session, json: string): Promise<string> {
  const known = filterIdOf(core, session.userRef, json)
  if (known !== undefined) return Promise.resolve(String(known))
  return core.queue.guarded((tx) => {
    const user = proveSession(tx, session).session.userRef
    const decision = decideFilter(filterFacts(tx, user, json), core.limits)
    if (decision.kind === 'add') addFilter(tx, user, json, decision)
    return String(decision.filterId)
  })
}

function filterIdOf({ db }: Core, user: UserRef, json: string): number | undefined {
  const sql = `select filter_id from filters where user_num = ? and json = ?`
  return db.one<{ filter_id: number }>(sql, user, json)?.filter_id
}

function filterFacts(db: Reader, user: UserRef, json: string): FilterFacts {
  const row = db.one<{ same: number | null; newest: number | null }>(
    `select max(filter_id) filter (where json = ?2) as same, max(filter_id) as newest
     from filters where user_num = ?1`,
    user,
    json,
  )
  return { same: row?.same ?? undefined, newest: row?.newest ?? undefined }
}

function addFilter(tx: Transaction, user: UserRef, json: string, { filterId, dropUpTo }: NewFilter): void {
  tx.run(`insert into filters (user_num, filter_id, json) values (?, ?, ?)`, user, filterId, json)
  if (dropUpTo !== undefined)
    tx.run(`delete from filters where user_num = ? and filter_id <= ?`, user, dropUpTo)
}

export function findFilter({ db }: Core, user: UserRef, filterId: string): string | undefined {
  const number = parseFilterId(filterId)
  if (number === undefined) return undefined
  const sql = `select json from filters where user_num = ? and filter_id = ?`
  return db.one<{ json: string }>(sql, user, number)?.json
}

export function putAccountData(core: Core, session: Session, type: string, content: string): Promise<void> {
  return core.queue.guarded((tx) => {
    const user = proveSession(tx, session).session.userRef
    enforceAccountDataLimits(otherAccountData(tx, user, type), { type, content }, core.limits)
    const position = core.positions.next(tx)
    tx.run(
      `insert into account_data (user_num, type, content, pos) values (?1, ?2, ?3, ?4)
       on conflict do update set content = ?3, pos = ?4`,
      user,
      type,
      content,
      position,
    )
    core.wakes.user(tx, user, position)
  })
}

function otherAccountData(db: Reader, user: UserRef, type: string): { count: number; bytes: number } {
  const others = db.one<{ count: number; bytes: number }>(
    `select count(*) as count, coalesce(sum(octet_length(type) + octet_length(content)), 0) as bytes
     from account_data where user_num = ? and type <> ?`,
    user,
    type,
  )
  return others ?? { count: 0, bytes: 0 }
}

export function accountData({ db }: Core, user: UserRef, type: string): string | undefined {
  const sql = `select content from account_data where user_num = ? and type = ?`
  return db.one<{ content: string }>(sql, user, type)?.content
}
