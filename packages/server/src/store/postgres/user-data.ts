/** Filters and global account data of a user. What is written is counted and numbered under the lock of her row. */
import { utf8Length } from '@latchkey/protocol'
import { invalidParam, tooLarge } from '../../matrix-error.ts'
import type { Session, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Queries } from './database.ts'
import { lockUser, requireToken } from './session-device.ts'

/** The same text gives the same ID: a client that makes its filter at every start does not fill the table. */
export async function putFilter(core: Core, session: Session, json: string): Promise<string> {
  const user = session.userRef
  const known = await filterIdOf(core.db, user, json)
  if (known !== undefined) return String(known)
  return write(core, async (tx) => {
    await lockUser(tx, user)
    await requireToken(tx, session)
    const filterId = (await filterIdOf(tx, user, json)) ?? (await addFilter(core, tx, user, json))
    return String(filterId)
  })
}

async function filterIdOf(db: Queries, user: UserRef, json: string): Promise<number | undefined> {
  const sql = `select filter_id from filters where user_num = $1 and json = $2`
  return (await db.one<{ filter_id: number }>(sql, user, json))?.filter_id
}

/** Over the limit the oldest goes: a client that finds its filter unknown makes it anew. */
async function addFilter({ limits }: Core, tx: Write, user: UserRef, json: string): Promise<number> {
  const added = await tx.one<{ filter_id: number }>(
    `insert into filters (user_num, filter_id, json)
     select $1, coalesce(max(filter_id) + 1, 0), $2 from filters where user_num = $1
     returning filter_id`,
    user,
    json,
  )
  if (added === undefined) throw new Error('a filter was not stored')
  await tx.run(
    `delete from filters where user_num = $1 and filter_id <= $2`,
    user,
    added.filter_id - limits.filtersPerUser,
  )
  return added.filter_id
}

export async function findFilter({ db }: Core, user: UserRef, filterId: string): Promise<string | undefined> {
  if (!/^(0|[1-9]\d{0,14})$/.test(filterId)) return undefined
  const sql = `select json from filters where user_num = $1 and filter_id = $2`
  return (await db.one<{ json: string }>(sql, user, Number(filterId)))?.json
}

export function putAccountData(core: Core, session: Session, type: string, content: string): Promise<void> {
  const user = session.userRef
  return write(core, async (tx) => {
    await lockUser(tx, user)
    await requireToken(tx, session)
    await requireRoom(core, tx, user, type, content)
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

/** In number and in bytes: a first sync carries all of it. */
async function requireRoom(
  { limits }: Core,
  tx: Queries,
  user: UserRef,
  type: string,
  content: string,
): Promise<void> {
  const others = await tx.one<{ count: number; bytes: number | null }>(
    `select count(*) as count, sum(octet_length(type) + octet_length(content)) as bytes
     from account_data where user_num = $1 and type <> $2`,
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

export async function accountData({ db }: Core, user: UserRef, type: string): Promise<string | undefined> {
  const sql = `select content from account_data where user_num = $1 and type = $2`
  return (await db.one<{ content: string }>(sql, user, type))?.content
}
