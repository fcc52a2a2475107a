/** Purges every pool of a device with one statement per table and pool, without loading a key (pool/purge.ts). */
import { emptyDigest } from '@latchkey/protocol'
import type { PurgeRule } from '../../pool/purge.ts'
import type { DeviceRef } from '../../session.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Transaction } from './database.ts'
import { loadDevice } from './pool-state.ts'
import { rememberFallback } from './save-changes.ts'

/**
 * Expects the device's rows to be settled. Its version and generation grow by one. Does not change memory: the caller
 * calls `KeyStates.forget`.
 */
export function purgePools(
  tx: Transaction,
  device: DeviceRef,
  { fallbackKeys, hidesIssued }: PurgeRule,
  now: number,
): void {
  for (const pool of loadDevice(tx, device)?.pools.values() ?? []) {
    const { poolNum } = pool
    tx.run(
      `update one_time_keys set state = ${STATE_CODE.purged}, left_ts = ?, json = null
       where pool_num = ? and state = ${STATE_CODE.available}`,
      now,
      poolNum,
    )
    if (fallbackKeys) rememberFallback(tx, poolNum, pool, 'purged', now)
    tx.run(
      `update pools set count = 0, told = 0, digest = ?,
         first_num = case when ? then (select coalesce(max(num), 0) + 1 from one_time_keys) else first_num end
       where pool_num = ?`,
      emptyDigest(),
      hidesIssued ? 1 : 0,
      poolNum,
    )
  }
  if (fallbackKeys) {
    tx.run(
      `update pools set fallback_key_id = null, fallback_json = null, fallback_material = null, fallback_used = 0,
         fallback_issue_count = 0, fallback_first_issued_ts = null, fallback_uploaded_ts = null
       where device_num = ?`,
      device,
    )
  }
  tx.run(`update devices set version = version + 1, generation = generation + 1 where device_num = ?`, device)
}
