/**
 * Deletion of rows past their retention, in small steps: the claimers and texts of issued keys, removed devices with
 * their records, names of claimers, old answers to resets. The text of an issued key goes before that if its device was
 * removed. Other keys lose it when they leave; in older databases here. The fact that a key of an existing device was
 * issued, evicted or purged is kept (key-pool.md "Enter once").
 */
import { HEAL_WITHIN_MS } from '../../pool/conflict.ts'
import { REPLAY_RESET_MS } from '../../pool/reset-replay.ts'
import type { DeviceRef } from '../../session.ts'
import { forgetAuthSessions } from './auth-sessions.ts'
import type { Core } from './core.ts'
import type { Transaction } from './database.ts'
import { forgetNetworks } from './known-networks.ts'
import { STATE_CODE } from '../key-row.ts'

/** Rows examined per step: about a millisecond. */
const KEYS_PER_STEP = 2_000
const DEVICES_PER_STEP = 5
const ANSWERS_PER_STEP = 100
const ISSUES_PER_STEP = 500
const STEP_EVERY_MS = 5_000

/** Sweeps until the returned function is called. A step that fails runs again later. */
export function startSweeping(core: Core, retentionMs: number, now: () => number): () => void {
  let cursor = 0
  const timer = setInterval(() => {
    sweepOnce(core, now() - retentionMs, now(), cursor).then(
      (next) => (cursor = next),
      () => {},
    )
  }, STEP_EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** One step, from the key row after `cursor`. Resolves with the cursor of the next step, 0 at the end of the table. */
export function sweepOnce(core: Core, cutoff: number, now: number, cursor: number): Promise<number> {
  return core.queue.guarded((tx) => {
    forgetDevices(core, tx, cutoff)
    tx.run(
      `delete from reset_answers where (device_num, request_id) in
         (select device_num, request_id from reset_answers where ts < ? limit ${ANSWERS_PER_STEP})`,
      now - REPLAY_RESET_MS,
    )
    tx.run(
      `delete from conflicts where device_num in (select device_num from conflicts where ts < ? limit ${ANSWERS_PER_STEP})`,
      now - HEAL_WITHIN_MS,
    )
    forgetFallbackIssues(tx, cutoff)
    forgetAuthSessions(tx, now)
    forgetNetworks(tx, cutoff)
    core.claimers.sweep(tx, cutoff)
    return forgetDetails(tx, cutoff, cursor)
  })
}

function forgetFallbackIssues(tx: Transaction, cutoff: number): void {
  tx.run(
    `delete from fallback_issues where (pool_num, material, claimer_num) in
       (select pool_num, material, claimer_num from fallback_issues where last_ts < ? limit ${ISSUES_PER_STEP})`,
    cutoff,
  )
}

/** The text of an issued key is kept for `keys/pool`, the claimer for the operator. */
function forgetDetails(tx: Transaction, cutoff: number, cursor: number): number {
  const end = cursor + KEYS_PER_STEP
  tx.run(
    `update one_time_keys set json = null, claimer_num = case when left_ts >= ?3 then claimer_num end
     where num > ?1 and num <= ?2 and state <> ${STATE_CODE.available}
       and (coalesce(json, claimer_num) is not null and left_ts < ?3
         or json is not null and (state <> ${STATE_CODE.issued} or (
           select removed_ts from pools join devices using (device_num)
           where pools.pool_num = one_time_keys.pool_num) is not null))`,
    cursor,
    end,
    cutoff,
  )
  const last = tx.one<{ num: number | null }>(`select max(num) as num from one_time_keys`)?.num ?? 0
  return end < last ? end : 0
}

/**
 * Deletes removed devices, at most `KEYS_PER_STEP` of their keys in a step and each device with its last one. The
 * device that owns the newest key of the database stays until another key is stored: numbers of keys continue from the
 * highest one in the table, and `pools.first_num` and the pages of issued keys rely on their growth.
 */
function forgetDevices(core: Core, tx: Transaction, cutoff: number): void {
  const expired = tx.all<{ device_num: DeviceRef }>(
    `select device_num from devices where removed_ts < ? and device_num is not (
       select device_num from one_time_keys join pools using (pool_num)
       where num = (select max(num) from one_time_keys))
     limit ${DEVICES_PER_STEP}`,
    cutoff,
  )
  let budget = KEYS_PER_STEP
  for (const { device_num: device } of expired) {
    const ofDevice = `(select pool_num from pools where device_num = ?)`
    budget -= tx.run(
      `delete from one_time_keys where num in
         (select num from one_time_keys where pool_num in ${ofDevice} limit ?)`,
      device,
      budget,
    )
    if (budget <= 0) return
    tx.run(`delete from former_fallback_keys where pool_num in ${ofDevice}`, device)
    tx.run(`delete from fallback_issues where pool_num in ${ofDevice}`, device)
    tx.run(`delete from pools where device_num = ?`, device)
    tx.run(`delete from conflicts where device_num = ?`, device)
    tx.run(`delete from devices where device_num = ?`, device)
    core.keys.forgetNames()
  }
}
