/**
 * Deletion of rows past their retention, in small steps: the texts and claimers of issued keys, removed devices with
 * their memory, names of claimers, old reset replays. The text of an issued key goes before that if its device was
 * removed. Other keys lose it when they leave; in older databases here. The fact that a key of an existing device was
 * issued, evicted or purged is kept (key-pool.md "Enter once"). One process sweeps at a time.
 */
import { HEAL_WITHIN_MS } from '../../pool/conflict.ts'
import { REPLAY_RESET_MS } from '../../pool/reset-replay.ts'
import { forgetAuthSessions } from './auth-sessions.ts'
import { forgetClaimers } from './claimers.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'
import { STATE_CODE } from '../key-row.ts'
import { forgetNetworks } from './known-networks.ts'
import type { LockedDeviceRef, LockedPoolNum } from './locks.ts'

/** Rows read in one step: a few milliseconds. */
const KEYS_PER_STEP = 2_000
const DEVICES_PER_STEP = 5
const ROWS_PER_STEP = 500
const STEP_EVERY_MS = 5_000
/** One of the advisory locks of this program. */
const SWEEP_LOCK = 0x6c6b_0002

/** The last key of the previous step; the next step begins after it. */
export type Cursor = { readonly poolNum: number; readonly seq: number }

export const START: Cursor = { poolNum: 0, seq: 0 }

/** Sweeps until the returned function is called. A failed step is repeated later. */
export function startSweeping(core: Core, retentionMs: number, now: () => number): () => void {
  let cursor = START
  let sweeping = false
  const step = async (): Promise<void> => {
    if (sweeping) return
    sweeping = true
    try {
      cursor = await sweepOnce(core, now() - retentionMs, now(), cursor)
    } catch {
      // A failing database is reported by the requests that need it.
    } finally {
      sweeping = false
    }
  }
  const timer = setInterval(() => void step(), STEP_EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** One step; resolves with the cursor of the next one, `START` at the end of the table. */
export function sweepOnce(
  { db }: Pick<Core, 'db'>,
  cutoff: number,
  now: number,
  cursor: Cursor,
): Promise<Cursor> {
  return db.transaction(async (tx) => {
    const lock = await tx.one<{ mine: boolean }>(
      `select pg_try_advisory_xact_lock($1, hashtext(current_schema())) as mine`,
      SWEEP_LOCK,
    )
    if (lock?.mine !== true) return cursor
    await forgetDevices(tx, cutoff)
    await forgetAnswers(tx, now)
    await forgetAuthSessions(tx, now)
    await forgetNetworks(tx, cutoff)
    await forgetClaimers(tx, cutoff)
    await forgetFallbackIssues(tx, cutoff)
    return forgetDetails(tx, cutoff, cursor)
  })
}

async function forgetAnswers(tx: Transaction, now: number): Promise<void> {
  await tx.run(
    `delete from reset_answers where (device_num, request_id) in
       (select device_num, request_id from reset_answers where ts < $1 limit ${ROWS_PER_STEP} for update skip locked)`,
    now - REPLAY_RESET_MS,
  )
  await tx.run(
    `delete from conflicts where device_num in
       (select device_num from conflicts where ts < $1 limit ${ROWS_PER_STEP} for update skip locked)`,
    now - HEAL_WITHIN_MS,
  )
}

async function forgetFallbackIssues(tx: Transaction, cutoff: number): Promise<void> {
  await tx.run(
    `delete from fallback_issues where (pool_num, material, claimer_num) in
       (select pool_num, material, claimer_num from fallback_issues where last_ts < $1
        limit ${ROWS_PER_STEP} for update skip locked)`,
    cutoff,
  )
}

/** The time of a key that was issued in upload order is in `issues`, not in its own row. */
async function forgetDetails(tx: Transaction, cutoff: number, cursor: Cursor): Promise<Cursor> {
  const window = await tx.one<{ seen: number; pool_num: number | null; seq: number | null }>(
    `with seen as (
       select pool_num, seq from one_time_keys where (pool_num, seq) > ($1, $2)
       order by pool_num, seq limit ${KEYS_PER_STEP}),
     last as (select pool_num, seq from seen order by pool_num desc, seq desc limit 1)
     select (select count(*) from seen) as seen, pool_num, seq from (select 1) as one left join last on true`,
    cursor.poolNum,
    cursor.seq,
  )
  if (window === undefined || window.pool_num === null || window.seq === null) return START
  const between = [cursor.poolNum, cursor.seq, window.pool_num, window.seq]
  await tx.run(
    `update one_time_keys as key set json = null
     where (pool_num, seq) > ($1, $2) and (pool_num, seq) <= ($3, $4) and json is not null
       and (left_ts < $5
         or state in (${STATE_CODE.withdrawn}, ${STATE_CODE.evicted}, ${STATE_CODE.purged})
         or exists (select 1 from issues where issues.pool_num = key.pool_num and issues.seq = key.seq and ts < $5)
         -- All keys of a removed device have left.
         or exists (select 1 from pools join devices using (device_num)
           where pools.pool_num = key.pool_num and removed_ts is not null))`,
    ...between,
    cutoff,
  )
  await tx.run(
    `delete from issues where (pool_num, seq) > ($1, $2) and (pool_num, seq) <= ($3, $4) and ts < $5`,
    ...between,
    cutoff,
  )
  return window.seen < KEYS_PER_STEP ? START : { poolNum: window.pool_num, seq: window.seq }
}

/** Deletes keys of removed devices, up to the limit of one step; a device itself when none of its keys is left. */
async function forgetDevices(tx: Transaction, cutoff: number): Promise<void> {
  const removed = await tx.all<{ device_num: LockedDeviceRef }>(
    `select device_num from devices where removed_ts < $1
     order by device_num limit ${DEVICES_PER_STEP} for update skip locked`,
    cutoff,
  )
  let budget = KEYS_PER_STEP
  for (const { device_num: device } of removed) {
    const pools = await tx.all<{ pool_num: LockedPoolNum }>(
      `select pool_num from pools where device_num = $1 order by pool_num for update`,
      device,
    )
    const nums = pools.map((pool) => pool.pool_num)
    budget -= await tx.run(
      `delete from one_time_keys where (pool_num, seq) in
         (select pool_num, seq from one_time_keys where pool_num = any($1::bigint[]) limit $2)`,
      nums,
      budget,
    )
    if (budget <= 0) return
    for (const table of ['issues', 'former_fallback_keys', 'fallback_issues', 'pools']) {
      await tx.run(`delete from ${table} where pool_num = any($1::bigint[])`, nums)
    }
    for (const table of [
      'former_identities',
      'conflicts',
      'reset_answers',
      'sent_transactions',
      'inbox',
      'devices',
    ]) {
      await tx.run(`delete from ${table} where device_num = $1`, device)
    }
  }
}
