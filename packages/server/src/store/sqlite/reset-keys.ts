/**
 * `/keys/reset` (MSC4162): withdraws available keys and, in the same transaction, stores their replacements.
 * Rules: pool/reset.ts; replacements enter as in an upload. A conflict among them undoes the whole request.
 */
import { type Algorithm, type KeyMaterial, type KeyName, keyName, parseKeyName } from '@latchkey/protocol'
import type { ResetCommand, ResetResult } from '../../pool/port.ts'
import { checkPreconditions, REPLAY_RESET_MS, REPLAYED_RESETS_PER_DEVICE } from '../../pool/reset.ts'
import { tooManyResets } from '../../pool/limits.ts'
import type { DeviceRef } from '../../session.ts'
import { type Core, signalDevice } from './core.ts'
import { touchDevice } from './first-touch.ts'
import { materialOfJson } from '../key-row.ts'
import {
  availableById,
  availableKeys,
  type AvailableRow,
  bumpVersion,
  poolOf,
  type PoolRow,
  poolsOf,
  removeKeys,
} from './pool-rows.ts'
import { poolStatus, toldStatus } from './pool-status.ts'
import { storeKeys } from './store-keys.ts'
import { requireDevice, toIdentity } from './session-device.ts'
import { decodeAnswer, encodeAnswer } from '../kept-answer.ts'

export function resetKeys(core: Core, command: ResetCommand): Promise<ResetResult> {
  const { deviceRef } = command.session
  return core.queue.guarded(() => reset(core, command), {
    before: () => touchDevice(core, deviceRef),
    undone: () => core.keys.forget(deviceRef),
  })
}

function reset(core: Core, command: ResetCommand): ResetResult {
  const { session, requestId, now } = command
  const device = requireDevice(core, session)
  const replayed = requestId === undefined ? undefined : findAnswer(core, session.deviceRef, requestId, now)
  if (replayed !== undefined) return replayed
  command.beforeChange()
  checkPreconditions(command, poolStatus(core, session.deviceRef))
  if (requestId !== undefined) requireRoom(core, session.deviceRef, now)
  const { withdrawn, absent } = withdraw(core, command)
  const stored = storeKeys(core, device, toIdentity(device), {
    ...command,
    mayHeal: false,
    alreadyStored: 0,
  })
  const left = withdrawn.length > 0 || stored.evicted.length > 0
  if (stored.changed || left) bumpVersion(core, session.deviceRef, left)
  if (left) signalDevice(core, session.deviceRef)
  const result = {
    withdrawn,
    absent,
    outcomes: stored.outcomes,
    fallbackOutcomes: stored.fallbackOutcomes,
    storedAs: stored.storedAs,
    evicted: stored.evicted,
    status: toldStatus(core, session.deviceRef),
  }
  if (requestId !== undefined) rememberAnswer(core, session.deviceRef, requestId, result, now)
  return result
}

/** Takes the available keys out that were asked for, but for those that the same request offers again. */
function withdraw(core: Core, command: ResetCommand): { withdrawn: KeyName[]; absent: KeyName[] } {
  const { session, withdrawal, oneTimeKeys, now } = command
  const offered = Map.groupBy(oneTimeKeys, (key) => key.algorithm)
  const kept = (algorithm: Algorithm): ReadonlySet<KeyMaterial> =>
    new Set(offered.get(algorithm)?.map((key) => key.material))
  const withdrawn: KeyName[] = []
  const absent: KeyName[] = []
  const takeOut = (pool: PoolRow, rows: readonly AvailableRow[]): void => {
    const keep = kept(pool.algorithm)
    const leaving = rows.filter((row) => !keep.has(materialOfJson(row.json)))
    removeKeys(core, pool, leaving, 'withdrawn', now)
    withdrawn.push(...leaving.map((row) => keyName(pool.algorithm, row.key_id)))
  }
  if (withdrawal.all) {
    for (const pool of poolsOf(core, session.deviceRef)) takeOut(pool, availableKeys(core, pool))
    return { withdrawn, absent }
  }
  for (const name of new Set(withdrawal.names)) {
    const parsed = parseKeyName(name)
    const pool = parsed && poolOf(core, session.deviceRef, parsed.algorithm)
    const row = pool && availableById(core, pool, parsed.keyId)
    if (pool === undefined || row === undefined) absent.push(name)
    else takeOut(pool, [row])
  }
  return { withdrawn, absent }
}

function findAnswer(core: Core, device: DeviceRef, requestId: string, now: number): ResetResult | undefined {
  const row = core.db.one<{ answer: string }>(
    `select answer from reset_answers where device_num = ? and request_id = ? and ts > ?`,
    device,
    requestId,
    now - REPLAY_RESET_MS,
  )
  if (row === undefined) return undefined
  return decodeAnswer(row.answer)
}

/** @throws {MatrixError} 429 when the device has as many answers remembered as it may. */
function requireRoom(core: Core, device: DeviceRef, now: number): void {
  core.db.run(`delete from reset_answers where device_num = ? and ts <= ?`, device, now - REPLAY_RESET_MS)
  const { n } = core.db.one<{ n: number }>(
    `select count(*) as n from reset_answers where device_num = ?`,
    device,
  ) ?? {
    n: 0,
  }
  if (n >= REPLAYED_RESETS_PER_DEVICE) throw tooManyResets(REPLAYED_RESETS_PER_DEVICE)
}

function rememberAnswer(
  core: Core,
  device: DeviceRef,
  requestId: string,
  result: ResetResult,
  now: number,
): void {
  const answer = encodeAnswer(result)
  core.db.run(
    `insert into reset_answers (device_num, request_id, ts, answer) values (?, ?, ?, ?)`,
    device,
    requestId,
    now,
    answer,
  )
}
