/**
 * `/keys/claim` on PostgreSQL: a batch of claims (claim-batcher.ts) in one transaction.
 *
 *     lock the pools, in order -> decide -> read the keys, record their claimers, move the heads
 *
 * - Pools are locked with FOR UPDATE and never skipped: a locked row is not an empty pool.
 * - The keys are read by a statement after the lock, whose snapshot includes uploads that the lock waited for.
 * - All claims of one device in a batch share its pool, so no two of them get the same key.
 *
 * The rules are in pool/claim.ts and pool/depletion.ts, those of signals in pool/wake.ts.
 */
import type { KeyId, KeyMaterial } from '@latchkey/protocol'
import { chooseKey } from '../../pool/claim.ts'
import { budgetFor } from '../../pool/depletion.ts'
import type { ClaimCommand, ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/commands.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import { acknowledgedAfterIssue, reachedLowWater } from '../../pool/wake.ts'
import type { DeviceRef } from '../../session.ts'
import { materialHash } from '../../pool/key.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Core, Write } from './core.ts'
import type { LockedPoolNum } from './locks.ts'
import { bytesOf } from './pool-row.ts'
import { StalePoolsError } from './purge-stale-pools.ts'

/** A claim, and the number of its claimer (claimers.ts). */
export type NumberedClaim = { readonly command: ClaimCommand; readonly claimerNum: number }

type PoolRow = {
  readonly pool_num: LockedPoolNum
  readonly device_num: DeviceRef
  readonly fence: number
  readonly name: string
  readonly head: number
  readonly count: number
  /** The available keys after the last upload. */
  readonly filled: number
  /** The acknowledged count. */
  readonly acknowledged: number
  readonly fallback_key_id: KeyId | null
  readonly fallback_json: string | null
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
}

/** A locked pool, and the keys that this batch takes from it. */
type Pool = PoolRow & {
  left: number
  takers: { readonly at: readonly [number, number]; readonly ts: number; readonly claimerNum: number }[]
  readonly fallbackTakers: Map<number, { count: number; ts: number }>
}

/** Returns the keys of each claim, in the order of the claims. @throws {StalePoolsError | UnverifiedServerError} */
export async function issue(core: Core, tx: Write, batch: readonly NumberedClaim[]): Promise<ClaimResult[]> {
  core.fence.requireVerified(tx.fence)
  const targets = batch.flatMap(({ command }) => command.targets)
  const pools = await lockPools(tx, targets)
  const results = batch.map(({ command, claimerNum }, i) =>
    command.targets.map((target, j) => decide(core, pools.get(nameOf(target)), command, claimerNum, [i, j])),
  )
  const touched = [...pools.values()].filter((pool) => pool.takers.length + pool.fallbackTakers.size > 0)
  if (touched.length === 0) return results
  await takeKeys(core, tx, touched, results)
  await noteFallbacks(tx, touched)
  signalDevices(tx, touched)
  return results
}

function nameOf({ userId, deviceId, algorithm }: ClaimTarget): string {
  return `${userId}\0${deviceId}\0${algorithm}`
}

/**
 * Locks the existing pools. The snapshot of a statement lacks a pool that was made while it waited for another one, and
 * a claim of two algorithms must not see half of an upload: missing pools are looked up again until none is found.
 */
async function lockPools(tx: Write, targets: readonly ClaimTarget[]): Promise<Map<string, Pool>> {
  const pools = new Map<string, Pool>()
  let missing = [...new Map(targets.map((target) => [nameOf(target), target])).values()]
  for (let found = 1; found > 0 && missing.length > 0; ) {
    const locked = await lockExisting(tx, missing)
    for (const pool of locked) pools.set(pool.name, pool)
    missing = missing.filter((target) => !pools.has(nameOf(target)))
    found = locked.length
  }
  return pools
}

async function lockExisting(tx: Write, targets: readonly ClaimTarget[]): Promise<Pool[]> {
  const rows = await tx.all<PoolRow & { i: number }>(
    `select i, pool_num, device_num, fence, head, count, filled, told as acknowledged,
       fallback_key_id, fallback_json, fallback_material, fallback_used
     from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (user_id, device_id, algorithm, i)
     join users using (user_id)
     join devices using (user_num, device_id)
     join pools using (device_num, algorithm)
     where removed_ts is null
     order by pool_num
     for update of pools`,
    targets.map((target) => target.userId),
    targets.map((target) => target.deviceId),
    targets.map((target) => target.algorithm),
  )
  // A purge locks devices, which are locked before pools (changes.ts), so it needs another transaction.
  const stale = rows.filter((row) => row.fence < tx.fence.number)
  if (stale.length > 0) throw new StalePoolsError([...new Set(stale.map((row) => row.device_num))])
  return rows.map(({ i, ...row }) => {
    const target = targets[i - 1]
    if (target === undefined) throw new Error('the database returned a device that was not queried')
    return { ...row, name: nameOf(target), left: row.count, takers: [], fallbackTakers: new Map() }
  })
}

/** Returns the key of one target. A one-time key is added after it was read. */
function decide(
  { depletion }: Core,
  pool: Pool | undefined,
  { claimer, now }: ClaimCommand,
  claimerNum: number,
  at: readonly [number, number],
): ClaimedKey | null | undefined {
  if (pool === undefined) return undefined
  const { fallback_key_id: keyId, fallback_json: json } = pool
  const kind = chooseKey(
    { available: pool.left, filled: pool.filled, hasFallback: json !== null },
    budgetFor(depletion, claimer, pool.device_num, now),
  )
  if (kind === 'one_time_key') {
    pool.left--
    pool.takers.push({ at, ts: now, claimerNum })
    return undefined
  }
  if (kind === 'withheld') return null
  if (kind === 'none' || keyId === null || json === null) return undefined
  const taken = pool.fallbackTakers.get(claimerNum)
  pool.fallbackTakers.set(claimerNum, { count: (taken?.count ?? 0) + 1, ts: now })
  return { keyId, json, fallback: true, rateLimited: kind === 'rate_limited' }
}

/**
 * Reads the issued keys, records their claimers and moves the heads, in one statement; adds the keys to the results.
 *
 * One row per pool carries all of its keys, so the planner expects few rows regardless of the batch, and finds all rows
 * by key.
 */
async function takeKeys(
  { policy }: Core,
  tx: Write,
  pools: readonly Pool[],
  results: (ClaimedKey | null | undefined)[][],
): Promise<void> {
  const takers = pools.flatMap((pool) => pool.takers)
  const fallbacks = pools.map((pool) => fallbackIssues(pool))
  let first = 0
  const firsts = pools.map((pool) => (first += pool.takers.length) - pool.takers.length)
  const keys = await tx.all<{ place: number; key_id: KeyId; json: string }>(
    TAKE_KEYS[policy.claimOrder],
    pools.map((pool) => pool.pool_num),
    pools.map((pool) => pool.head),
    pools.map((pool) => pool.takers.length),
    firsts,
    pools.map((pool) => pool.left),
    pools.map((pool) => acknowledgedAfterIssue(pool.acknowledged, pool.left)),
    fallbacks.map(({ count }) => count),
    fallbacks.map(({ ts }) => ts),
    takers.map(({ ts }) => ts),
    takers.map(({ claimerNum }) => claimerNum),
  )
  if (keys.length !== takers.length) {
    throw new Error(
      `the counts of the pools promise ${takers.length} available keys, and ${keys.length} were found`,
    )
  }
  for (const { place, key_id: keyId, json } of keys) {
    const [i, j] = takers[place - 1]?.at ?? [-1, -1]
    const result = results[i]
    if (result === undefined) throw new Error('the database returned a key that was not queried')
    result[j] = { keyId, json, fallback: false, rateLimited: false }
  }
}

/**
 * In upload order the head passes the issued keys, and the rows of the keys do not change. In any other order the rows
 * have the state, and the head moves to the first available key.
 */
const TAKE_KEYS: Record<PoolPolicy['claimOrder'], string> = {
  upload: takeKeysSql({ order: 'seq', head: `seqs[cardinality(seqs)] + 1` }),
  key_id: takeKeysSql({
    order: 'key_id',
    head: `coalesce(
      (select seq from one_time_keys as key where key.pool_num = taken.pool_num and seq >= taken.head
         and state = ${STATE_CODE.available} and seq <> all (seqs) order by seq limit 1),
      last_seq + 1)`,
    marked: `marked as (
      update one_time_keys set state = ${STATE_CODE.issued}
      from taken cross join unnest(seqs) as issued (issued_seq)
      where one_time_keys.pool_num = taken.pool_num and seq = issued_seq),`,
  }),
}

function takeKeysSql({
  order,
  head,
  marked = '',
}: {
  readonly order: 'seq' | 'key_id'
  /** The new head of a pool whose keys are issued. */
  readonly head: string
  readonly marked?: string
}): string {
  return `with taken as materialized (
      select wanted.*, key.*
      from unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::bigint[])
        as wanted (pool_num, head, n, first, count, told, fallbacks, fallback_ts)
      cross join lateral (
        select array_agg(seq order by ${order}) as seqs, array_agg(key_id order by ${order}) as key_ids,
          array_agg(json order by ${order}) as jsons
        from (
          select seq, key_id, json from one_time_keys
          where one_time_keys.pool_num = wanted.pool_num and seq >= wanted.head and state = ${STATE_CODE.available}
          order by ${order} limit n) as next) as key),
    noted as (
      insert into issues (pool_num, seq, ts, claimer_num)
      select pool_num, seq, ($9::bigint[])[first + i], ($10::bigint[])[first + i]
      from taken cross join unnest(seqs) with ordinality as key (seq, i)),
    ${marked}
    moved as (
      update pools set head = case when n > 0 then ${head} else pools.head end,
        count = taken.count, told = taken.told, changes = changes + n + fallbacks,
        fallback_used = fallback_used or fallbacks > 0,
        fallback_issue_count = fallback_issue_count + fallbacks,
        fallback_first_issued_ts = case when fallbacks > 0 then coalesce(fallback_first_issued_ts, fallback_ts)
          else fallback_first_issued_ts end
      from taken where pools.pool_num = taken.pool_num)
    select first + i as place, key_id, json
    from taken cross join unnest(key_ids, jsons) with ordinality as key (key_id, json, i)`
}

function fallbackIssues({ fallbackTakers }: Pool): { count: number; ts: number } {
  const takers = [...fallbackTakers.values()]
  return {
    count: takers.reduce((sum, { count }) => sum + count, 0),
    ts: takers.length === 0 ? 0 : Math.min(...takers.map(({ ts }) => ts)),
  }
}

/** Records the claimers of fallback keys, with count and time: one row per claimer. */
async function noteFallbacks(tx: Write, pools: readonly Pool[]): Promise<void> {
  const rows = pools.flatMap(({ pool_num: num, fallback_material: material, fallbackTakers }) =>
    material === null
      ? []
      : [...fallbackTakers].map(([claimerNum, { count, ts }]) => ({
          num,
          material: materialHash(material),
          claimerNum,
          count,
          ts,
        })),
  )
  if (rows.length === 0) return
  await tx.run(
    `insert into fallback_issues as known (pool_num, material, claimer_num, count, first_ts, last_ts)
     select pool_num, material, claimer_num, count, ts, ts
     from unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])
       as issued (pool_num, material, claimer_num, count, ts)
     on conflict (pool_num, material, claimer_num)
       do update set count = known.count + excluded.count, last_ts = excluded.last_ts`,
    rows.map(({ num }) => num),
    rows.map(({ material }) => bytesOf(material)),
    rows.map(({ claimerNum }) => claimerNum),
    rows.map(({ count }) => count),
    rows.map(({ ts }) => ts),
  )
}

/**
 * Signals low water and the first use of a fallback key. The position is in the row of the pool, because the device is
 * not locked.
 */
function signalDevices(tx: Write, pools: readonly Pool[]): void {
  const signalled = pools.filter(
    (pool) =>
      reachedLowWater(pool.acknowledged, pool.left) || (pool.fallbackTakers.size > 0 && !pool.fallback_used),
  )
  if (signalled.length === 0) return
  for (const { device_num: device } of signalled) tx.changes.wakeDevice(device)
  tx.changes.write(1, (last, position) =>
    last.run(
      `update pools set signal_pos = $1 where pool_num = any($2::bigint[])`,
      position(),
      signalled.map(({ pool_num: num }) => num),
    ),
  )
}
