/**
 * `/keys/reset` (MSC4162): withdraws available keys and, in the same transaction, stores their replacements.
 * Rules: pool/reset.ts; replacements enter as in an upload. A conflict among them undoes the whole request.
 */
import { type KeyName, keyName, parseKeyName } from '@latchkey/protocol'
import { tooManyResets } from '../../pool/limits.ts'
import type { ResetCommand, ResetResult } from '../../pool/port.ts'
import { checkPreconditions, REPLAY_RESET_MS, REPLAYED_RESETS_PER_DEVICE } from '../../pool/reset.ts'
import type { DeviceRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Queries } from './database.ts'
import { type AvailableKey, hashOf, loadPools, type Pool } from './pool-rows.ts'
import { fullStatus } from './pool-status.ts'
import { saveKeys } from './save-keys.ts'
import { type DeviceRow, requireDevice, toIdentity } from './session-device.ts'
import { storeKeys } from './store-keys.ts'
import { decodeAnswer, encodeAnswer } from '../kept-answer.ts'

export async function resetKeys(core: Core, command: ResetCommand): Promise<ResetResult> {
  let counted = false
  // Once for a request, however often its transaction is tried.
  const beforeChange = (): void => {
    if (!counted) command.beforeChange()
    counted = true
  }
  const { result, remember } = await write(core, (tx) => reset(core, tx, { ...command, beforeChange }))
  remember?.()
  return result
}

async function reset(
  core: Core,
  tx: Write,
  command: ResetCommand,
): Promise<{ readonly result: ResetResult; readonly remember?: () => void }> {
  const { session, requestId, now } = command
  const { device, pools: before } = await requireDevice(tx, session, now)
  const replayed =
    requestId === undefined ? undefined : await findAnswer(tx, session.deviceRef, requestId, now)
  if (replayed !== undefined) return { result: replayed }
  command.beforeChange()
  await requirePreconditions(core, tx, command, device, before)
  if (requestId !== undefined) await requireRoom(tx, session.deviceRef, now)
  const { withdrawn, absent } = await withdraw(tx, command, before)
  const stored = await storeKeys(core, tx, device, toIdentity(device), before, {
    ...command,
    mayHeal: async () => false,
    alreadyStored: 0,
  })
  const left = withdrawn.length > 0 || stored.evicted.length > 0
  const { pools, day } = stored
  const saved = await saveKeys(core, tx, command, device, {
    pools,
    day,
    changed: stored.changed || left,
    left,
  })
  if (left) tx.changes.signal(session.deviceRef)
  const result = {
    withdrawn,
    absent,
    outcomes: stored.outcomes,
    fallbackOutcomes: stored.fallbackOutcomes,
    storedAs: stored.storedAs,
    evicted: stored.evicted,
    status: saved.status,
  }
  if (requestId !== undefined) await rememberAnswer(tx, session.deviceRef, requestId, result, now)
  return { result, remember: saved.remember }
}

/** The status is read for them alone: without any it would be for nothing. */
async function requirePreconditions(
  core: Core,
  tx: Write,
  command: ResetCommand,
  { version, generation }: DeviceRow,
  pools: readonly Pool[],
): Promise<void> {
  const { ifEpoch, ifGeneration, ifVersion } = command
  if (ifEpoch === undefined && ifGeneration === undefined && ifVersion === undefined) return
  const standing = { epoch: tx.standing.epoch, version, generation, pools: pools.map(({ row }) => row) }
  checkPreconditions(command, await fullStatus(core, tx, standing))
}

/** Takes the available keys out that were asked for, but for those that the same request offers again. */
async function withdraw(
  tx: Queries,
  { withdrawal, oneTimeKeys }: ResetCommand,
  pools: readonly Pool[],
): Promise<{ withdrawn: KeyName[]; absent: KeyName[] }> {
  const offered = new Set(oneTimeKeys.map((key) => `${key.algorithm} ${hashOf(key.material)}`))
  const withdrawn: KeyName[] = []
  const absent: KeyName[] = []
  const leaving = new Map<Pool, AvailableKey[]>(pools.map((pool) => [pool, []]))
  const takeOut = (pool: Pool, key: AvailableKey): void => {
    if (offered.has(`${pool.algorithm} ${key.hash}`)) return
    leaving.get(pool)?.push(key)
    withdrawn.push(keyName(pool.algorithm, key.key_id))
  }
  if (withdrawal.all) {
    await loadPools(tx, pools)
    for (const pool of pools) for (const key of pool.available) takeOut(pool, key)
  } else {
    const names = [...new Set(withdrawal.names)].map((name) => ({ name, parsed: parseKeyName(name) }))
    const asked = new Set(names.map(({ parsed }) => parsed?.algorithm))
    const named = pools.filter((pool) => asked.has(pool.algorithm))
    await loadPools(tx, named)
    const available = new Map(
      named.flatMap((pool) =>
        pool.available.map((key) => [keyName(pool.algorithm, key.key_id), { pool, key }] as const),
      ),
    )
    for (const { name, parsed } of names) {
      const found = parsed && available.get(keyName(parsed.algorithm, parsed.keyId))
      if (found === undefined) absent.push(name)
      else takeOut(found.pool, found.key)
    }
  }
  for (const [pool, keys] of leaving) pool.remove(keys, 'withdrawn')
  return { withdrawn, absent }
}

async function findAnswer(
  tx: Queries,
  device: DeviceRef,
  requestId: string,
  now: number,
): Promise<ResetResult | undefined> {
  const row = await tx.one<{ answer: string }>(
    `select answer from reset_answers where device_num = $1 and request_id = $2 and ts > $3`,
    device,
    requestId,
    now - REPLAY_RESET_MS,
  )
  if (row === undefined) return undefined
  return decodeAnswer(row.answer)
}

/** @throws {MatrixError} 429 when the device has as many answers remembered as it may. */
async function requireRoom(tx: Queries, device: DeviceRef, now: number): Promise<void> {
  await tx.run(`delete from reset_answers where device_num = $1 and ts <= $2`, device, now - REPLAY_RESET_MS)
  const row = await tx.one<{ n: number }>(
    `select count(*) as n from reset_answers where device_num = $1`,
    device,
  )
  if ((row?.n ?? 0) >= REPLAYED_RESETS_PER_DEVICE) throw tooManyResets(REPLAYED_RESETS_PER_DEVICE)
}

async function rememberAnswer(
  tx: Queries,
  device: DeviceRef,
  requestId: string,
  result: ResetResult,
  now: number,
): Promise<void> {
  const answer = encodeAnswer(result)
  await tx.run(
    `insert into reset_answers (device_num, request_id, ts, answer) values ($1, $2, $3, $4)`,
    device,
    requestId,
    now,
    answer,
  )
}
