/** Filters and global account data of a user. */
import { utf8Length } from '@latchkey/protocol'
import { invalidParam, tooLarge } from '../../matrix-error.ts'
import type { Session, UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import { requireDevice } from './session-device.ts'

/** The same text gives the same ID: a client that makes its filter at every start does not fill the table. */
export function putFilter(core: Core, session: Session, json: string): Promise<string> {
  const user = session.userRef
  const known = filterIdOf(core, user, json)
  if (known !== undefined) return Promise.resolve(String(known))
  return core.queue.guarded(() => {
    requireDevice(core, session)
    const filterId = filterIdOf(core, user, json) ?? addFilter(core, user, json)
    return String(filterId)
  })
}

function filterIdOf({ db }: Core, user: UserRef, json: string): number | undefined {
  const sql = `select filter_id from filters where user_num = ? and json = ?`
  return db.one<{ filter_id: number }>(sql, user, json)?.filter_id
}

/** Over the limit the oldest goes: a client that finds its filter unknown makes it anew. */
function addFilter({ db, limits }: Core, user: UserRef, json: string): number {
  const newest = db.one<{ id: number | null }>(
    `select max(filter_id) as id from filters where user_num = ?`,
    user,
  )
  const filterId = (newest?.id ?? -1) + 1
  db.run(`insert into filters (user_num, filter_id, json) values (?, ?, ?)`, user, filterId, json)
  db.run(`delete from filters where user_num = ? and filter_id <= ?`, user, filterId - limits.filtersPerUser)
  return filterId
}

export function findFilter({ db }: Core, user: UserRef, filterId: string): string | undefined {
  if (!/^(0|[1-9]\d{0,14})$/.test(filterId)) return undefined
  const sql = `select json from filters where user_num = ? and filter_id = ?`
  return db.one<{ json: string }>(sql, user, Number(filterId))?.json
}

export function putAccountData(core: Core, session: Session, type: string, content: string): Promise<void> {
  const user = session.userRef
  return core.queue.guarded(() => {
    requireDevice(core, session)
    requireRoom(core, user, type, content)
    core.db.run(
      `insert into account_data (user_num, type, content, pos) values (?1, ?2, ?3, ?4)
       on conflict do update set content = ?3, pos = ?4`,
      user,
      type,
      content,
      core.positions.next(),
    )
    core.wakes.user(user)
  })
}

/** In number and in bytes: a first sync carries all of it. */
function requireRoom({ db, limits }: Core, user: UserRef, type: string, content: string): void {
  const others = db.one<{ count: number; bytes: number | null }>(
    `select count(*) as count, sum(octet_length(type) + octet_length(content)) as bytes
     from account_data where user_num = ? and type <> ?`,
    user,
    type,
  )
  if ((others?.count ?? 0) >= limits.accountDataTypesPerUser) {
    throw invalidParam(
      `This account has ${limits.accountDataTypesPerUser} types of account data, the most it may have.`,
    )
  }
  const bytes = (others?.bytes ?? 0) + utf8Length(type) + utf8Length(content)
  if (bytes > limits.accountDataTotalBytes) {
    throw tooLarge(
      `All account data of this account would have ${bytes} bytes; at most ${limits.accountDataTotalBytes} are kept.`,
    )
  }
}

export function accountData({ db }: Core, user: UserRef, type: string): string | undefined {
  const sql = `select content from account_data where user_num = ? and type = ?`
  return db.one<{ content: string }>(sql, user, type)?.content
}
