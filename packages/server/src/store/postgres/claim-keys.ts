/**
 * `/keys/claim` on PostgreSQL: a flush of claims (claim-lanes.ts) in one transaction.
 *
 *     lock the pools, in order -> decide -> read the keys -> note who has them -> move the heads
 *
 * - Pools are locked with FOR UPDATE and waited for, never skipped: a locked row is not an empty pool.
 * - The keys are read by a statement after the one that locked: its snapshot has what an upload committed meanwhile.
 * - Claims of one device in one flush are one group, so no two of them look for the same key.
 *
 * The rules are pool/claim.ts and pool/depletion.ts; the wake-ups are pool/wake.ts.
 */
import type { KeyId, KeyMaterial } from '@latchkey/protocol'
import { chooseKey } from '../../pool/claim.ts'
import type { ClaimCommand, ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/port.ts'
import { reachedLowWater } from '../../pool/wake.ts'
import type { DeviceRef } from '../../session.ts'
import { materialHash, STATE_CODE } from '../key-row.ts'
import type { Core, Write } from './core.ts'
import { BelowFence } from './freshen.ts'

/** A claim, and the number of who claims (claimers.ts). */
export type NumberedClaim = { readonly command: ClaimCommand; readonly claimerNum: number }

type PoolRow = {
  readonly pool_num: number
  readonly device_num: DeviceRef
  readonly fence: number
  readonly name: string
  readonly head: number
  readonly count: number
  readonly told: number
  readonly fallback_key_id: KeyId | null
  readonly fallback_json: string | null
  readonly fallback_material: KeyMaterial | null
  readonly fallback_used: boolean
}

/** A locked pool, and what leaves it in this flush. */
type Pool = PoolRow & {
  left: number
  takers: { readonly at: readonly [number, number]; readonly ts: number; readonly claimerNum: number }[]
  readonly fallbackTakers: Map<number, { count: number; ts: number }>
}

/** What each claim of a flush gets, in their order. @throws {BelowFence} */
export async function issue(core: Core, tx: Write, batch: readonly NumberedClaim[]): Promise<ClaimResult[]> {
  const targets = batch.flatMap(({ command }) => command.targets)
  const pools = await lockPools(tx, targets)
  const results = batch.map(({ command, claimerNum }, i) =>
    command.targets.map((target, j) => decide(core, pools.get(nameOf(target)), command, claimerNum, [i, j])),
  )
  const touched = [...pools.values()].filter((pool) => pool.takers.length + pool.fallbackTakers.size > 0)
  if (touched.length === 0) return results
  const heads = await takeKeys(core, tx, touched, results)
  await moveHeads(tx, touched, heads)
  await noteFallbacks(tx, touched)
  tellDevices(tx, touched)
  return results
}

export function nameOf({ userId, deviceId, algorithm }: ClaimTarget): string {
  return `${userId}\0${deviceId}\0${algorithm}`
}

/**
 * Locks the pools that there are. A pool that was made while the statement waited for another one is not in its snapshot,
 * and a claim of two algorithms must not see half of an upload: what was not found is asked for again until nothing is.
 */
async function lockPools(tx: Write, targets: readonly ClaimTarget[]): Promise<Map<string, Pool>> {
  const pools = new Map<string, Pool>()
  let missing = [...new Map(targets.map((target) => [nameOf(target), target])).values()]
  for (let found = 1; found > 0 && missing.length > 0; ) {
    const locked = await lockThose(tx, missing)
    for (const pool of locked) pools.set(pool.name, pool)
    missing = missing.filter((target) => !pools.has(nameOf(target)))
    found = locked.length
  }
  return pools
}

async function lockThose(tx: Write, targets: readonly ClaimTarget[]): Promise<Pool[]> {
  const rows = await tx.all<PoolRow & { i: number }>(
    `select i, pool_num, device_num, fence, head, count, told,
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
  // Devices are locked before pools (changes.ts), so not in this transaction.
  const stale = rows.filter((row) => row.fence < tx.standing.fence)
  if (stale.length > 0) throw new BelowFence([...new Set(stale.map((row) => row.device_num))])
  return rows.map(({ i, ...row }) => {
    const target = targets[i - 1]
    if (target === undefined) throw new Error('the database answered for a device that was not asked for')
    return { ...row, name: nameOf(target), left: row.count, takers: [], fallbackTakers: new Map() }
  })
}

/** What one target gets; a one-time key is filled in when it was read. */
function decide(
  { depletion }: Core,
  pool: Pool | undefined,
  { claimer, now }: ClaimCommand,
  claimerNum: number,
  at: readonly [number, number],
): ClaimedKey | undefined {
  if (pool === undefined) return undefined
  const { fallback_key_id: keyId, fallback_json: json } = pool
  const takesBudget = (): boolean => depletion?.takesOneTimeKey(claimer, pool.device_num, now) ?? true
  const kind = chooseKey({ available: pool.left > 0, hasFallback: json !== null }, takesBudget)
  if (kind === 'one_time_key') {
    pool.left--
    pool.takers.push({ at, ts: now, claimerNum })
    return undefined
  }
  if (kind === 'none' || keyId === null || json === null) return undefined
  const taken = pool.fallbackTakers.get(claimerNum)
  pool.fallbackTakers.set(claimerNum, { count: (taken?.count ?? 0) + 1, ts: now })
  return { keyId, json, fallback: true, spared: kind === 'spared' }
}

type TakenKey = {
  readonly pool_num: number
  readonly seq: number
  readonly key_id: KeyId
  readonly json: string
}

/** Reads the keys that leave, hands them to their takers, and writes who has them. Returns the new heads, by pool. */
async function takeKeys(
  { policy }: Core,
  tx: Write,
  pools: readonly Pool[],
  results: (ClaimedKey | undefined)[][],
): Promise<Map<number, number>> {
  const asked = pools.filter(({ takers }) => takers.length > 0)
  if (asked.length === 0) return new Map()
  const byKeyId = policy.claimOrder === 'key_id'
  const rows = await tx.all<TakenKey>(
    `select pool_num, key.seq, key_id, json
     from unnest($1::bigint[], $2::bigint[], $3::int[]) as wanted (pool_num, head, n)
     cross join lateral (
       select seq, key_id, json from one_time_keys
       where one_time_keys.pool_num = wanted.pool_num and seq >= head and state = ${STATE_CODE.available}
       order by ${byKeyId ? 'key_id' : 'seq'} limit n) as key`,
    asked.map(({ pool_num: num }) => num),
    asked.map(({ head }) => head),
    asked.map(({ takers }) => takers.length),
  )
  const keys = Map.groupBy(rows, (row) => row.pool_num)
  const heads = new Map<number, number>()
  const issued: Issued[] = []
  for (const pool of asked) {
    // The lateral reads in order; nothing says that its rows stay so.
    const taken = (keys.get(pool.pool_num) ?? []).sort((a, b) =>
      byKeyId ? Buffer.compare(Buffer.from(a.key_id), Buffer.from(b.key_id)) : a.seq - b.seq,
    )
    for (const [n, { at, ts, claimerNum }] of pool.takers.entries()) {
      const key = taken[n]
      if (key === undefined) {
        throw new Error(`pool ${pool.pool_num} counts ${pool.count} available keys and has ${taken.length}`)
      }
      const result = results[at[0]]
      if (result !== undefined) {
        result[at[1]] = { keyId: key.key_id, json: key.json, fallback: false, spared: false }
      }
      issued.push({ key, ts, claimerNum })
    }
    heads.set(pool.pool_num, (taken.at(-1)?.seq ?? 0) + 1)
  }
  await noteIssues(tx, issued)
  return byKeyId ? markIssued(tx, issued) : heads
}

type Issued = { readonly key: TakenKey; readonly ts: number; readonly claimerNum: number }

async function noteIssues(tx: Write, issued: readonly Issued[]): Promise<void> {
  await tx.run(
    `insert into issues (pool_num, seq, ts, claimer_num)
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])`,
    issued.map(({ key }) => key.pool_num),
    issued.map(({ key }) => key.seq),
    issued.map(({ ts }) => ts),
    issued.map(({ claimerNum }) => claimerNum),
  )
}

/**
 * In any other order than that of the log the head cannot tell what is issued, so the keys' own rows do; it only passes
 * those before the first that is left. Returns the new heads, by pool.
 */
async function markIssued(tx: Write, issued: readonly Issued[]): Promise<Map<number, number>> {
  const pools = issued.map(({ key }) => key.pool_num)
  await tx.run(
    `update one_time_keys set state = ${STATE_CODE.issued}
     from unnest($1::bigint[], $2::bigint[]) as gone (pool_num, seq)
     where one_time_keys.pool_num = gone.pool_num and one_time_keys.seq = gone.seq`,
    pools,
    issued.map(({ key }) => key.seq),
  )
  const rows = await tx.all<{ pool_num: number; head: number }>(
    `select pool_num, coalesce(
       (select seq from one_time_keys as key
        where key.pool_num = pools.pool_num and seq >= head and state = ${STATE_CODE.available} order by seq limit 1),
       last_seq + 1) as head
     from pools where pool_num = any($1::bigint[])`,
    [...new Set(pools)],
  )
  return new Map(rows.map(({ pool_num: num, head }) => [num, head]))
}

async function moveHeads(
  tx: Write,
  pools: readonly Pool[],
  heads: ReadonlyMap<number, number>,
): Promise<void> {
  const fallbacks = pools.map((pool) => fallbackIssues(pool))
  await tx.run(
    `update pools set head = moved.head, count = moved.count, told = moved.told, changes = pools.changes + moved.changes,
       fallback_used = fallback_used or moved.fallbacks > 0,
       fallback_issue_count = fallback_issue_count + moved.fallbacks,
       fallback_first_issued_ts = case when moved.fallbacks > 0 then coalesce(fallback_first_issued_ts, moved.ts)
         else fallback_first_issued_ts end
     from unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[], $7::bigint[])
       as moved (pool_num, head, count, told, changes, fallbacks, ts)
     where pools.pool_num = moved.pool_num`,
    pools.map((pool) => pool.pool_num),
    pools.map((pool) => heads.get(pool.pool_num) ?? pool.head),
    pools.map((pool) => pool.left),
    pools.map((pool) => (reachedLowWater(pool.told, pool.left) ? pool.left : pool.told)),
    pools.map((pool, i) => pool.takers.length + (fallbacks[i]?.count ?? 0)),
    fallbacks.map(({ count }) => count),
    fallbacks.map(({ ts }) => ts),
  )
}

function fallbackIssues({ fallbackTakers }: Pool): { count: number; ts: number } {
  const takers = [...fallbackTakers.values()]
  return {
    count: takers.reduce((sum, { count }) => sum + count, 0),
    ts: takers.length === 0 ? 0 : Math.min(...takers.map(({ ts }) => ts)),
  }
}

/** Who was given a fallback key, how often and when: one row per claimer. */
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
    rows.map(({ material }) => material),
    rows.map(({ claimerNum }) => claimerNum),
    rows.map(({ count }) => count),
    rows.map(({ ts }) => ts),
  )
}

/** Low water, and the first use of a fallback key. The position stands in the pool's row, which is locked; the device's is not. */
function tellDevices(tx: Write, pools: readonly Pool[]): void {
  const signalled = pools.filter(
    (pool) => reachedLowWater(pool.told, pool.left) || (pool.fallbackTakers.size > 0 && !pool.fallback_used),
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
