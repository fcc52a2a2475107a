/** Purges all pools of devices by one statement per table, without loading a key (pool/purge.ts). */
import type { PurgeRule } from '../../pool/purge.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Transaction } from './database.ts'
import type { LockedDeviceRef } from './locks.ts'

/**
 * Locks the pools and purges them; pool rows that were read earlier are out of date. The version and the generation of
 * each device grow by one. `changes` grows in each of its pools, so the device's own part of the version is lowered
 * by the other ones (save-changes.ts).
 */
export async function purgePools(
  tx: Transaction,
  devices: readonly LockedDeviceRef[],
  { fallbackKeys, hidesIssued }: PurgeRule,
  now: number,
): Promise<void> {
  if (devices.length === 0) return
  await lockPoolsOf(tx, devices)
  await tx.run(
    `update one_time_keys set state = ${STATE_CODE.purged}, left_ts = $2, json = null from pools
     where device_num = any($1::bigint[]) and one_time_keys.pool_num = pools.pool_num
       and seq >= head and state = ${STATE_CODE.available}`,
    devices,
    now,
  )
  if (fallbackKeys) await keepFormerFallbacks(tx, devices, now)
  await tx.run(
    `with purged as (
       update pools set head = last_seq + 1, first_seq = case when $2 then last_seq + 1 else first_seq end,
         count = 0, told = 0, changes = changes + 1,
         fallback_key_id = case when not $3 then fallback_key_id end,
         fallback_json = case when not $3 then fallback_json end,
         fallback_material = case when not $3 then fallback_material end,
         fallback_used = not $3 and fallback_used,
         fallback_issue_count = case when $3 then 0 else fallback_issue_count end,
         fallback_first_issued_ts = case when not $3 then fallback_first_issued_ts end,
         fallback_uploaded_ts = case when not $3 then fallback_uploaded_ts end
       where device_num = any($1::bigint[]) returning device_num)
     update devices set generation = generation + 1,
       version = version + 1 - (select count(*) from purged where purged.device_num = devices.device_num)
     where device_num = any($1::bigint[])`,
    devices,
    hidesIssued,
    fallbackKeys,
  )
}

export async function lockPoolsOf(tx: Transaction, devices: readonly LockedDeviceRef[]): Promise<void> {
  if (devices.length === 0) return
  await tx.run(
    `select 1 from pools where device_num = any($1::bigint[]) order by pool_num for update`,
    devices,
  )
}

/** The hash is `materialHash` of pool/key.ts. */
async function keepFormerFallbacks(
  tx: Transaction,
  devices: readonly LockedDeviceRef[],
  now: number,
): Promise<void> {
  await tx.run(
    `insert into former_fallback_keys
       (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
     select pool_num, substring(sha256(convert_to(fallback_material, 'UTF8')) from 1 for 16), fallback_key_id,
       fallback_uploaded_ts, $2, ${STATE_CODE.purged}, fallback_issue_count, fallback_first_issued_ts
     from pools where device_num = any($1::bigint[]) and fallback_material is not null
     on conflict do nothing`,
    devices,
    now,
  )
}
