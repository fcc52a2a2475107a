/**
 * Saves the changes that the domain decided for a device's pools (pool/port.ts), with a few statements regardless of
 * the number of keys in the request.
 */
import type { DeviceChanges, PoolChange, PoolsChange } from '../../pool/port.ts'
import { materialHash } from '../../pool/key.ts'
import { DEVICE_COUNTS, deviceCounts, USER_COUNTS, userCounts } from '../day-counts.ts'
import { STATE_CODE } from '../key-row.ts'
import type { Core, Write } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { LockedUser } from './locks.ts'
import { bytesOf, emptyPoolRow, type PoolRow } from './pool-row.ts'
import type { LockedDevice } from './session-device.ts'

/** Returns a function to call after the commit, which brings the caches up to date. */
export async function saveChanges(
  core: Core,
  tx: Write,
  locked: LockedDevice,
  changes: DeviceChanges,
): Promise<() => void> {
  const { deviceRef } = locked
  const saved = await savePools(tx, locked, changes)
  if (changes.givenUp !== undefined) {
    await tx.run(
      `insert into former_identities (device_num, ed25519, curve25519) values ($1, $2, $3)`,
      deviceRef,
      changes.givenUp.ed25519 ?? null,
      changes.givenUp.curve25519 ?? null,
    )
    await dropDeviceSignatures(tx, requireUser(locked), [deviceRef])
  }
  if (changes.deviceKeys !== undefined) tx.changes.listChanged(requireUser(locked))
  if (changes.pools?.signal === true) tx.changes.signal(deviceRef)
  await saveRefusal(tx, locked, changes)
  await saveReplay(tx, locked, changes)
  const { epoch } = tx.fence
  return () => {
    if (changes.countsAcknowledged === true) core.advertised.forget(deviceRef)
    for (const { row, change } of saved) {
      if (change !== undefined)
        core.digests.keep(epoch, row, Buffer.from(change.digest).toString('base64url'))
    }
  }
}

function requireUser({ owner }: LockedDevice): LockedUser {
  if (owner === undefined) throw new Error('device keys or budgets change without the lock of their user')
  return owner.user
}

/** A pool's row before and after its change. */
type SavedPool = { readonly before: PoolRow; readonly row: PoolRow; readonly change: PoolChange | undefined }

/** Saves the changed pools and the device; returns all pools of the device. */
async function savePools(tx: Write, locked: LockedDevice, changes: DeviceChanges): Promise<SavedPool[]> {
  const { pools: change } = changes
  const made = await makePools(tx, locked, change)
  const now = change?.now ?? 0
  const changed = new Map(change?.pools.map((one) => [one.algorithm, one]))
  const pools = [...locked.pools, ...made].map((before) => {
    const own = changed.get(before.algorithm)
    return { before, change: own, row: rowAfter(before, own, changes, now) }
  })
  const rows = pools.filter(
    (pool) => pool.change !== undefined || pool.row.acknowledged !== pool.before.acknowledged,
  )
  const { deviceKeys, counts } = changes
  if (rows.length > 0 || change !== undefined || deviceKeys !== undefined || counts !== undefined) {
    await markRemoved(tx, rows, now)
    await keepFormerFallbacks(tx, rows, now)
    await saveRows(tx, locked, changes, rows, ownVersion(locked, change, pools), now)
  }
  return pools
}

/**
 * Makes the new pools. The request cannot be refused any longer, which matters because a rollback does not return the
 * numbers of pools, and there are 2^31 of them.
 */
async function makePools(
  tx: Write,
  { deviceRef }: LockedDevice,
  change: PoolsChange | undefined,
): Promise<PoolRow[]> {
  const missing = (change?.pools ?? []).filter(({ isNew }) => isNew)
  if (missing.length === 0) return []
  const rows = await tx.all<Pick<PoolRow, 'pool_num' | 'algorithm'>>(
    `insert into pools (device_num, algorithm) select $1, unnest($2::text[]) returning pool_num, algorithm`,
    deviceRef,
    missing.map(({ algorithm }) => algorithm),
  )
  return rows.map((row) => emptyPoolRow(row.pool_num, row.algorithm))
}

function rowAfter(
  before: PoolRow,
  change: PoolChange | undefined,
  { countsAcknowledged = false }: DeviceChanges,
  now: number,
): PoolRow {
  if (change === undefined) return countsAcknowledged ? { ...before, acknowledged: before.count } : before
  const { count, filled = before.filled, added, fallback, formerFallback } = change
  const row = {
    ...before,
    count,
    filled,
    acknowledged: count,
    last_seq: before.last_seq + added.length,
    changes: before.changes + 1,
  }
  if (fallback === undefined && formerFallback === undefined) return row
  return {
    ...row,
    fallback_key_id: fallback?.keyId ?? null,
    fallback_json: fallback?.json ?? null,
    fallback_material: fallback?.material ?? null,
    fallback_uploaded_ts: fallback === undefined ? null : now,
    fallback_used: false,
    fallback_issue_count: 0,
    fallback_first_issued_ts: null,
  }
}

/** The part of the version outside the pools, which exists because claims change the row of their pool only. */
function ownVersion(
  { row }: LockedDevice,
  change: PoolsChange | undefined,
  pools: readonly SavedPool[],
): number {
  if (change === undefined) return row.version
  return pools.reduce((own, pool) => own - pool.row.changes, change.version)
}

/** Marks removed keys: first those named one by one, then in cleared pools all available keys except the kept ones. */
async function markRemoved(tx: Write, pools: readonly SavedPool[], now: number): Promise<void> {
  const removed = pools.flatMap(({ row, change }) =>
    [...(change?.removed ?? [])].map(([seq, state]) => ({
      num: row.pool_num,
      seq,
      state: STATE_CODE[state],
    })),
  )
  if (removed.length > 0) {
    await tx.run(
      `update one_time_keys set state = removed.state, left_ts = $1, json = null
       from unnest($2::bigint[], $3::bigint[], $4::smallint[]) as removed (pool_num, seq, state)
       where one_time_keys.pool_num = removed.pool_num and one_time_keys.seq = removed.seq`,
      now,
      removed.map(({ num }) => num),
      removed.map(({ seq }) => seq),
      removed.map(({ state }) => state),
    )
  }
  for (const { before, change } of pools) {
    if (change?.cleared === undefined) continue
    await tx.run(
      `update one_time_keys set state = $1, left_ts = $2, json = null
       where pool_num = $3 and seq >= $4 and state = ${STATE_CODE.available} and seq <> all($5::bigint[])`,
      STATE_CODE[change.cleared.as],
      now,
      before.pool_num,
      before.head,
      change.cleared.kept,
    )
  }
}

/** Remembers replaced fallback keys, so that a late duplicate of one does not count as a new key. */
async function keepFormerFallbacks(tx: Write, pools: readonly SavedPool[], now: number): Promise<void> {
  for (const { before, change } of pools) {
    if (change?.formerFallback === undefined || before.fallback_material === null) continue
    await tx.run(
      `insert into former_fallback_keys
         (pool_num, material, key_id, uploaded_ts, left_ts, state, issue_count, first_issued_ts)
       values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing`,
      before.pool_num,
      bytesOf(materialHash(before.fallback_material)),
      before.fallback_key_id,
      before.fallback_uploaded_ts,
      now,
      STATE_CODE[change.formerFallback],
      before.fallback_issue_count,
      before.fallback_first_issued_ts,
    )
  }
}

/**
 * Saves new keys, pools and the device in one statement. The head of a pool moves to its first available key, or past
 * the end when none is left. It never moves back, because issued keys below it would count as available.
 */
async function saveRows(
  tx: Write,
  locked: LockedDevice,
  { pools: change, deviceKeys, givenUp, counts }: DeviceChanges,
  pools: readonly SavedPool[],
  version: number,
  now: number,
): Promise<void> {
  const { deviceRef, row: device } = locked
  const rows = pools.map(({ row }) => row)
  const keys = pools.flatMap(({ before, change: own }) =>
    (own?.added ?? []).map(({ key, state }, i) => ({
      ...key,
      num: before.pool_num,
      seq: before.last_seq + 1 + i,
      state: STATE_CODE[state],
    })),
  )
  const { ed25519, curve25519 } = deviceKeys?.identity ?? device
  await tx.run(
    `with added as (
       insert into one_time_keys (pool_num, seq, uploaded_ts, key_id, material, json, state, left_ts)
       select pool_num, seq, $13, key_id, material, case when state = ${STATE_CODE.available} then json end, state,
         case when state <> ${STATE_CODE.available} then $13::bigint end
       from unnest($14::bigint[], $15::bigint[], $16::text[], $17::bytea[], $18::text[], $19::smallint[])
         as added (pool_num, seq, key_id, material, json, state)),
     device as (
       update devices set version = $21, generation = $22, ${counted(DEVICE_COUNTS, '$23')},
         device_keys = $25, ed25519 = $26, curve25519 = $27, identity_changed = $28
       where device_num = $20),
     owner as (update users set ${counted(USER_COUNTS, '$24')} where user_num = $31)
     update pools set
       head = case saved.moves
         when 'past the end' then pools.last_seq + 1
         when 'to the first available' then coalesce(
           (select seq from one_time_keys as key
            where key.pool_num = pools.pool_num and seq >= pools.head and state = ${STATE_CODE.available}
            order by seq limit 1), pools.last_seq + 1)
         else pools.head end,
       first_seq = case when saved.hides_issued then pools.last_seq + 1 else first_seq end,
       last_seq = saved.last_seq, count = saved.count, filled = saved.filled,
       changes = saved.changes, told = saved.told,
       fallback_key_id = saved.key_id, fallback_json = saved.json, fallback_material = saved.material,
       fallback_used = saved.used, fallback_issue_count = saved.issue_count,
       fallback_first_issued_ts = saved.first_issued_ts, fallback_uploaded_ts = saved.uploaded_ts
     from unnest($1::bigint[], $2::text[], $29::boolean[], $3::bigint[], $4::int[], $5::bigint[], $30::int[], $32::int[],
         $6::text[], $7::text[], $8::text[], $9::boolean[], $10::bigint[], $11::bigint[], $12::bigint[])
       as saved (pool_num, moves, hides_issued, last_seq, count, changes, told, filled, key_id, json, material, used,
         issue_count, first_issued_ts, uploaded_ts)
     where pools.pool_num = saved.pool_num`,
    rows.map((row) => row.pool_num),
    pools.map(headMove),
    rows.map((row) => row.last_seq),
    rows.map((row) => row.count),
    rows.map((row) => row.changes),
    rows.map((row) => row.fallback_key_id),
    rows.map((row) => row.fallback_json),
    rows.map((row) => row.fallback_material),
    rows.map((row) => row.fallback_used),
    rows.map((row) => row.fallback_issue_count),
    rows.map((row) => row.fallback_first_issued_ts),
    rows.map((row) => row.fallback_uploaded_ts),
    now,
    keys.map((key) => key.num),
    keys.map((key) => key.seq),
    keys.map((key) => key.keyId),
    keys.map((key) => bytesOf(key.hash)),
    keys.map((key) => key.json),
    keys.map((key) => key.state),
    deviceRef,
    version,
    change?.generation ?? device.generation,
    counts === undefined ? null : deviceCounts(counts),
    counts === undefined ? null : userCounts(counts),
    deviceKeys?.json ?? device.device_keys,
    ed25519 ?? null,
    curve25519 ?? null,
    givenUp === undefined ? device.identity_changed : true,
    pools.map(({ change: own }) => own?.hidesIssued ?? false),
    rows.map((row) => row.acknowledged),
    counts === undefined ? null : requireUser(locked),
    rows.map((row) => row.filled),
  )
}

/** Sets columns to the elements of an array parameter; those of a null array keep their values. */
function counted(columns: string, parameter: string): string {
  const set = (column: string, i: number): string =>
    `${column} = coalesce((${parameter}::bigint[])[${i + 1}], ${column})`
  return columns.split(', ').map(set).join(', ')
}

/** The move of a pool's head. */
function headMove({ change }: SavedPool): 'stays' | 'past the end' | 'to the first available' {
  if (change === undefined) return 'stays'
  const added = change.added.filter(({ state }) => state === 'available').length
  if (change.count === added) return 'past the end'
  return change.removed.size > 0 || change.cleared !== undefined ? 'to the first available' : 'stays'
}

async function saveRefusal(
  tx: Write,
  { deviceRef }: LockedDevice,
  { refused }: DeviceChanges,
): Promise<void> {
  if (refused === undefined) return
  if (refused === 'forget') {
    await tx.run(`delete from conflicts where device_num = $1`, deviceRef)
    return
  }
  await tx.run(
    `insert into conflicts (device_num, materials, ts) values ($1, $2, $3)
     on conflict (device_num) do update set materials = excluded.materials, ts = excluded.ts`,
    deviceRef,
    refused.materials,
    refused.ts,
  )
}

async function saveReplay(tx: Write, { deviceRef }: LockedDevice, { replay }: DeviceChanges): Promise<void> {
  if (replay === undefined) return
  await tx.run(`delete from reset_answers where device_num = $1 and ts <= $2`, deviceRef, replay.forgetUpTo)
  await tx.run(
    `insert into reset_answers (device_num, request_id, ts, answer) values ($1, $2, $3, $4)`,
    deviceRef,
    replay.requestId,
    replay.ts,
    replay.answer,
  )
}
