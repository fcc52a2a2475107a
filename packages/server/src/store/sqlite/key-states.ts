/**
 * The pools in memory, and the issue log behind them.
 *
 * A claim changes memory and appends one row to `issue_log`, and no row of a key or a pool, so a commit of many
 * claims is one or two sequential pages. The rows of keys and pools are written later ("settled"): before any other
 * operation on the device, when the log is long, and at close. The log therefore holds exactly the issues that are
 * not settled, and opening the database replays it. Measured: bench/RESULTS.md.
 *
 * A device with unsettled issues is `dirty` and stays in memory; the other devices are a cache.
 */
import { LRUCache } from 'lru-cache'
import { mixIn, type Algorithm, type DeviceId, type UserId } from '@latchkey/protocol'
import type { AlgorithmStatus, PoolStatus } from '../../pool/commands.ts'
import { materialHash, materialOfJson, shareOf } from '../../pool/key.ts'
import type { DeviceRef } from '../../session.ts'
import type { Reader, Transaction } from './database.ts'
import type { Fence } from './fence.ts'
import { STATE_CODE } from '../key-row.ts'
import {
  type DeviceState,
  type FallbackState,
  type FallbackUse,
  type Issue,
  loadDevice,
  type NextKey,
  type PoolState,
  type PoolSums,
  readAhead,
} from './pool-state.ts'

/** Devices in the cache, not counting dirty ones: about 2 kB each. */
const MAX_KNOWN_DEVICES = 20_000
/** Names resolved to devices: about 150 bytes each. */
const MAX_NAMES = 100_000
/** Unsettled issues above which each commit settles some: bounds memory (about 300 bytes each) and the time to open. */
const MAX_UNSETTLED = 50_000

export class KeyStates {
  readonly #db: Reader
  readonly #fence: Pick<Fence, 'epoch'>
  readonly #claimOrder: 'upload' | 'key_id'
  readonly #names = new LRUCache<string, DeviceRef>({ max: MAX_NAMES })
  readonly #known = new LRUCache<DeviceRef, DeviceState>({ max: MAX_KNOWN_DEVICES })
  /** In the order in which they became dirty: the oldest is the first to be settled. */
  readonly #dirty = new Map<DeviceRef, DeviceState>()
  #unsettledCount = 0
  #issuedInTransaction = 0
  #lastIssue = 0

  constructor(db: Reader, fence: Pick<Fence, 'epoch'>, claimOrder: 'upload' | 'key_id') {
    this.#db = db
    this.#fence = fence
    this.#claimOrder = claimOrder
  }

  /** The pools of an existing device by its Matrix name; undefined when the device does not exist. */
  byName(userId: UserId, deviceId: DeviceId): DeviceState | undefined {
    const name = `${userId}\0${deviceId}`
    let ref = this.#names.get(name)
    if (ref === undefined) {
      ref = this.#db.one<{ device_num: DeviceRef }>(
        `select device_num from devices join users using (user_num) where user_id = ? and device_id = ?`,
        userId,
        deviceId,
      )?.device_num
      if (ref === undefined) return undefined
      this.#names.set(name, ref)
    }
    return this.byRef(ref)
  }

  /** The pools of an existing device; undefined when it is removed. */
  byRef(ref: DeviceRef): DeviceState | undefined {
    const known = this.#dirty.get(ref) ?? this.#known.get(ref)
    if (known !== undefined) return known
    const loaded = loadDevice(this.#db, ref)
    if (loaded !== undefined) this.#known.set(ref, loaded)
    return loaded
  }

  /** The pools of a device whose session was proved, so that it exists. */
  existing(ref: DeviceRef): DeviceState {
    const device = this.byRef(ref)
    if (device === undefined) throw new Error(`device ${ref} does not exist, although its session was proved`)
    return device
  }

  /** The next key to issue; undefined when none is available. */
  next(pool: PoolState): NextKey | undefined {
    if (pool.count === 0) return undefined
    if (pool.aheadFrom === pool.ahead.length) {
      pool.ahead = readAhead(this.#db, pool, this.#claimOrder)
      pool.aheadFrom = 0
    }
    const next = pool.ahead[pool.aheadFrom]
    if (next === undefined)
      throw new Error(`pool ${pool.poolNum} counts ${pool.count} available keys but has none`)
    return next
  }

  /** Issues a key, in memory and in the log. */
  issue(
    tx: Transaction,
    device: DeviceState,
    pool: PoolState,
    key: NextKey,
    ts: number,
    claimerNum: number,
  ): void {
    const issue = keyIssue(pool, key, { n: ++this.#lastIssue, ts, claimerNum })
    this.#log(tx, pool, issue)
    this.#applyIssue(device, pool, issue)
    this.#issuedInTransaction++
  }

  /** Issues a fallback key, in memory and in the log. Returns whether it is the key's first issue. */
  issueFallback(
    tx: Transaction,
    device: DeviceState,
    pool: PoolState,
    fallback: FallbackState,
    ts: number,
    claimerNum: number,
  ): boolean {
    const first = !fallback.used
    const issue = { n: ++this.#lastIssue, keyNum: null, share: undefined, ts, claimerNum }
    this.#log(tx, pool, issue)
    this.#applyFallbackIssue(device, pool, fallback, issue)
    this.#issuedInTransaction++
    return first
  }

  /** Writes the unsettled issues of a device into its rows. */
  settle(tx: Transaction, ref: DeviceRef): void {
    const device = this.#dirty.get(ref)
    if (device === undefined) return
    this.#settleRows(tx, device)
    this.#known.set(ref, device)
  }

  /** Drops a settled device, after its rows changed or a change was rolled back: the next use reads its rows. */
  forget(ref: DeviceRef): void {
    this.#known.delete(ref)
  }

  /** Replaces a settled device by the state that the transaction saved in its rows. */
  replace(_tx: Transaction, device: DeviceState): void {
    this.#known.set(device.deviceRef, device)
  }

  /** After rows of devices were deleted: their names may get other rows. */
  forgetNames(): void {
    this.#names.clear()
  }

  /** Before a commit: when the log is long, settles its oldest issues, more of them than the transaction issued. */
  settleSome(tx: Transaction): void {
    let budget = this.#unsettledCount > MAX_UNSETTLED ? this.#issuedInTransaction * 2 + 64 : 0
    this.#issuedInTransaction = 0
    for (const device of this.#dirty.values()) {
      for (const pool of device.pools.values()) {
        if (budget <= 0) return
        // Within the pool as well, because all issues of the log may be of one popular pool.
        budget -= this.#settlePool(tx, pool, budget)
        if (pool.unsettled.length > 0) return
      }
      this.#dirty.delete(device.deviceRef)
      this.#known.set(device.deviceRef, device)
    }
  }

  /** Settles every issue of the log. */
  settleAll(tx: Transaction): void {
    for (const device of this.#dirty.values()) this.#settleRows(tx, device)
  }

  /** Drops the state in memory and replays the log: at open, and after a rollback. */
  reload(): void {
    this.#names.clear()
    this.#dirty.clear()
    this.#known.clear()
    this.#unsettledCount = 0
    this.#issuedInTransaction = 0
    this.#lastIssue = 0
    const rows = this.#db.all<{
      n: number
      device_num: DeviceRef
      algorithm: Algorithm
      key_num: number | null
      ts: number
      claimer_num: number
    }>(
      `select n, device_num, algorithm, key_num, ts, claimer_num from issue_log join pools using (pool_num) order by n`,
    )
    for (const row of rows) {
      const issue = { n: row.n, ts: row.ts, claimerNum: row.claimer_num }
      this.#lastIssue = row.n
      const device = this.byRef(row.device_num)
      const pool = device?.pools.get(row.algorithm)
      if (device === undefined || pool === undefined)
        throw new Error(`issue ${row.n} refers to a pool that does not exist`)
      pool.replayed = true
      if (row.key_num === null) {
        const { fallback } = pool
        const fallbackIssue = { ...issue, keyNum: null, share: undefined }
        if (fallback !== undefined) this.#applyFallbackIssue(device, pool, fallback, fallbackIssue)
      } else {
        const key = this.#db.one<NextKey>(
          `select num, key_id, json from one_time_keys where num = ?`,
          row.key_num,
        )
        if (key === undefined) throw new Error(`issue ${row.n} refers to a key that does not exist`)
        this.#applyIssue(device, pool, keyIssue(pool, key, issue))
      }
    }
  }

  /** The status of a device's pools in answers. */
  statusOf(device: DeviceState): PoolStatus {
    const algorithms: AlgorithmStatus[] = []
    let version = device.version
    for (const pool of device.pools.values()) {
      version += pool.changes
      algorithms.push({
        algorithm: pool.algorithm,
        count: pool.count,
        digest: Buffer.from(pool.digest).toString('base64url'),
        ...(pool.fallback && { fallback: { keyHash: pool.fallback.keyHash, used: pool.fallback.used } }),
      })
    }
    return { epoch: this.#fence.epoch, version, generation: device.generation, algorithms }
  }

  #log(tx: Transaction, pool: PoolState, issue: Issue): void {
    tx.run(
      `insert into issue_log (n, pool_num, key_num, ts, claimer_num) values (?, ?, ?, ?, ?)`,
      issue.n,
      pool.poolNum,
      issue.keyNum,
      issue.ts,
      issue.claimerNum,
    )
  }

  #applyIssue(device: DeviceState, pool: PoolState, issue: Issue): void {
    this.#markDirty(device, pool, issue)
    if (pool.ahead[pool.aheadFrom]?.num === issue.keyNum) pool.aheadFrom++
    countIssue(pool, issue)
  }

  #applyFallbackIssue(device: DeviceState, pool: PoolState, fallback: FallbackState, issue: Issue): void {
    this.#markDirty(device, pool, issue)
    countIssue(pool, issue)
    countUse(fallback, issue)
  }

  #markDirty(device: DeviceState, pool: PoolState, issue: Issue): void {
    pool.unsettled.push(issue)
    this.#unsettledCount++
    this.#dirty.set(device.deviceRef, device)
  }

  #settleRows(tx: Transaction, device: DeviceState): void {
    for (const pool of device.pools.values()) this.#settlePool(tx, pool)
    this.#dirty.delete(device.deviceRef)
  }

  /** Settles the oldest `atMost` issues of a pool; returns how many there were. */
  #settlePool(tx: Transaction, pool: PoolState, atMost = Number.POSITIVE_INFINITY): number {
    const { settled, fallback } = pool
    const issues = pool.unsettled.splice(0, atMost)
    if (issues.length === 0) return 0
    for (const issue of issues) {
      const { n, keyNum, ts, claimerNum } = issue
      tx.run(`delete from issue_log where n = ?`, n)
      countIssue(settled, issue)
      if (keyNum === null) {
        countUse(settled, issue)
        if (fallback !== undefined) this.#recordFallbackIssue(tx, pool.poolNum, fallback, ts, claimerNum)
        continue
      }
      tx.run(
        `update one_time_keys set state = ${STATE_CODE.issued}, left_ts = ?, claimer_num = ? where num = ?`,
        ts,
        claimerNum,
        keyNum,
      )
    }
    tx.run(
      `update pools set count = ?, digest = ?, changes = ?, told = ?,
         fallback_used = ?, fallback_issue_count = ?, fallback_first_issued_ts = ?
       where pool_num = ?`,
      settled.count,
      settled.digest,
      settled.changes,
      pool.acknowledged,
      settled.used ? 1 : 0,
      settled.issueCount,
      settled.firstIssuedTs,
      pool.poolNum,
    )
    this.#unsettledCount -= issues.length
    if (pool.unsettled.length === 0) pool.replayed = false
    return issues.length
  }

  /** Records the issues of a fallback key, with their number and times: one row per claimer. */
  #recordFallbackIssue(
    tx: Transaction,
    poolNum: number,
    fallback: FallbackState,
    ts: number,
    claimerNum: number,
  ): void {
    tx.run(
      `insert into fallback_issues (pool_num, material, claimer_num, count, first_ts, last_ts)
       values (?1, ?2, ?3, 1, ?4, ?4)
       on conflict do update set count = count + 1, last_ts = ?4`,
      poolNum,
      Buffer.from(materialHash(fallback.material), 'hex'),
      claimerNum,
      ts,
    )
  }
}

function keyIssue(pool: PoolState, key: NextKey, issue: Pick<Issue, 'n' | 'ts' | 'claimerNum'>): Issue {
  return { ...issue, keyNum: key.num, share: shareOf(pool.algorithm, key.key_id, materialOfJson(key.json)) }
}

function countIssue(sums: PoolSums, { share }: Issue): void {
  sums.changes++
  if (share === undefined) return
  sums.count--
  mixIn(sums.digest, share)
}

function countUse(use: FallbackUse, { ts }: Issue): void {
  use.used = true
  use.issueCount++
  use.firstIssuedTs ??= ts
}
