/**
 * Withdraws keys before they are issued, with the means of the server: Latchkey and MSC4162 have a reset; on a bare
 * server the device can only claim its own keys, as Element iOS did (element-ios#3818).
 */
import {
  EPOCH,
  IF_GENERATION,
  IF_VERSION,
  isJsonObject,
  type JsonObject,
  KEY_POOL,
  type KeyJson,
  type KeyName,
  type KeyPool,
  REQUEST_ID,
  SIGNED_CURVE25519,
} from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import { isPublic, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf, moveTo } from '../ledger/ledger.ts'
import { type Counts, decodeKeyPool, decodeReset, decodeUpload, type ResetAnswer } from '../server/answers.ts'
import { learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { WithdrawalTarget } from './abandon-keys.ts'
import { forgetLevel, guardedDevice, knownLevel } from './guarded-device.ts'
import type { GuardContext } from './context.ts'
import { HealFailed, LEVEL_UNKNOWN } from './heal-once.ts'
import {
  clearPendingWithdrawals,
  namesOf,
  pendingWithdrawals,
  removePendingWithdrawals,
} from './pending-withdrawals.ts'

/** Attempts of a reset that fail because claims changed the pool in the meantime. */
const MAX_RACES = 5
/** Latchkey's limit of key names per reset. */
const MAX_NAMES = 1_000
const MAX_OWN_CLAIMS = 1_000
/** Concurrent claims of own keys. */
const CLAIMS_AT_ONCE = 5
const REQUEST_ID_BYTES = 16

/** Withdraws named keys. Returns a description of the result. @throws {HealFailed} */
export async function withdrawKeys(
  context: GuardContext,
  targets: readonly WithdrawalTarget[],
): Promise<string> {
  const level = requireLevel(context)
  if (level === 'bare') return drain(context)
  if (targets.length === 0) return 'nothing to withdraw'
  let withdrawn: number | undefined = 0
  for (let start = 0; start < targets.length; start += MAX_NAMES) {
    const asked = targets.slice(start, start + MAX_NAMES)
    const answer = await reset(context, level, { key_ids: namesOf(asked) })
    await settleReset(context, answer, asked)
    withdrawn = answer.withdrawn && withdrawn !== undefined ? withdrawn + answer.withdrawn.length : undefined
  }
  return withdrawn === undefined
    ? `reset ${targets.length} keys`
    : `withdrew ${withdrawn} of ${targets.length} keys`
}

/** Withdraws every key. Returns a description of the result. @throws {HealFailed} */
export async function withdrawAll(context: GuardContext): Promise<string> {
  const level = requireLevel(context)
  if (level === 'bare') return drain(context)
  const targets = await context.state.read((view) => [
    ...[...view.all(ONE_TIME_KEYS)]
      .filter(([, { state }]) => state === 'available')
      .map(([id]) => ({ name: id as KeyName, id })),
    ...(pendingWithdrawals(view)?.targets ?? []),
  ])
  const answer = await reset(context, level, { all: true })
  await settleReset(context, answer, targets, true)
  return `reset all keys${answer.withdrawn === undefined ? '' : ` (${answer.withdrawn.length} withdrawn)`}`
}

function requireLevel(context: GuardContext): ServerLevel {
  const level = knownLevel(context)
  if (level === undefined) throw new HealFailed(LEVEL_UNKNOWN)
  return level
}

/**
 * On Latchkey the request carries the pool state it was decided on, so that a reset that is abandoned here but arrives
 * late does not affect keys published since.
 */
async function reset(context: GuardContext, level: ServerLevel, body: JsonObject): Promise<ResetAnswer> {
  const { server, state } = context
  let pool = await state.read((view) => view.get(SERVER_VIEW, SERVER_VIEW_ID)?.keyPool)
  for (let attempt = 1; ; attempt++) {
    const precise = level === 'latchkey' ? { ...preconditions(body, pool), [REQUEST_ID]: randomId() } : {}
    const { status, body: answer } = await server.reset({ ...body, ...precise })
    if (status === 200) return decodeReset(answer)
    const current = status === 409 ? decodeKeyPool(answer[KEY_POOL]) : undefined
    if (current !== undefined && attempt < MAX_RACES) {
      pool = current
      continue
    }
    const code = typeof answer['errcode'] === 'string' ? ` ${answer['errcode']}` : ''
    if (answer['errcode'] === 'M_UNRECOGNIZED') forgetLevel(context)
    throw new HealFailed(`/keys/reset answered ${status}${code}`)
  }
}

function preconditions(body: JsonObject, pool: KeyPool | undefined): JsonObject {
  if (pool === undefined) return {}
  const { epoch, version, generation } = pool
  return {
    [EPOCH]: epoch,
    ...(body['all'] === true ? { [IF_GENERATION]: generation } : { [IF_VERSION]: version }),
  }
}

async function settleReset(
  { settings, state }: GuardContext,
  answer: ResetAnswer,
  targets: readonly WithdrawalTarget[],
  isAll = false,
): Promise<void> {
  const now = settings.now()
  const withdrawn = answer.withdrawn && new Set(answer.withdrawn)
  await state.update((transaction) => {
    for (const { name, id } of targets) {
      const record = id === undefined ? undefined : transaction.get(ONE_TIME_KEYS, id)
      if (id === undefined || record === undefined) continue
      // Without a list it is unknown which keys were issued before; lost keys stay lost.
      if (withdrawn?.has(name) ?? isPublic(record)) {
        const { detail } = record
        moveTo(transaction, ONE_TIME_KEYS, id, 'withdrawn', now, detail === undefined ? {} : { detail })
      }
    }
    const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    if (isAll) clearPendingWithdrawals(transaction)
    else removePendingWithdrawals(transaction, targets)
    const learned = { ...answer, begunAt: transaction.generation, isChange: true }
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
  })
}

/** Claims the device's own keys until none is left, which a fallback key in the answer indicates. */
async function drain(context: GuardContext): Promise<string> {
  const { server, state } = context
  const { userId, deviceId } = await state.read(guardedDevice)
  if (userId === undefined || deviceId === undefined) {
    throw new HealFailed('the server has no reset, and the device whose keys to claim is unknown')
  }
  const count = await askCount(context)
  let claimed = 0
  let isEmpty = count === 0
  while (!isEmpty && claimed < MAX_OWN_CLAIMS) {
    const claims = Array.from({ length: Math.min(CLAIMS_AT_ONCE, Math.max(1, count - claimed)) }, () =>
      server.claim(userId, deviceId, SIGNED_CURVE25519).catch(() => ({ status: 0, body: {} })),
    )
    const keys: KeyJson[] = []
    let refused: number | undefined
    for (const { status, body } of await Promise.all(claims)) {
      const key = status === 200 ? oneTimeKeyOf(body, userId, deviceId) : undefined
      if (key !== undefined) keys.push(key)
      if (status !== 200) refused = status
    }
    await noteClaimed(context, keys)
    claimed += keys.length
    if (refused !== undefined)
      throw new HealFailed(
        refused === 0
          ? `/keys/claim did not answer after ${claimed} own keys`
          : `/keys/claim answered ${refused} after ${claimed} own keys`,
      )
    isEmpty = keys.length < claims.length || claimed >= count
  }
  // The store's lock is held, so no other upload can have added keys.
  await noteCounts(context, { [SIGNED_CURVE25519]: Math.max(0, count - claimed) })
  if (!isEmpty) throw new HealFailed(`${claimed} own keys were claimed, but more remain`)
  await state.update(clearPendingWithdrawals)
  return `claimed ${claimed} own keys, because the server has no reset`
}

/** The exact number of available keys, from an empty upload that changes nothing. */
async function askCount({ server }: GuardContext): Promise<number> {
  const { status, body } = await server.upload({})
  const counts = status === 200 ? decodeUpload(body).counts : undefined
  if (counts === undefined) throw new HealFailed(`an empty upload was answered with ${status} and no counts`)
  return counts[SIGNED_CURVE25519] ?? 0
}

function oneTimeKeyOf(answer: JsonObject, userId: string, deviceId: string): KeyJson | undefined {
  const { one_time_keys: users } = answer
  const devices = isJsonObject(users) ? users[userId] : undefined
  const keys = isJsonObject(devices) ? devices[deviceId] : undefined
  const [key] = isJsonObject(keys) ? Object.values(keys) : []
  if (typeof key === 'string') return key
  return isJsonObject(key) && typeof key['key'] === 'string' && key['fallback'] !== true
    ? { ...key, key: key['key'] }
    : undefined
}

async function noteClaimed({ settings, state }: GuardContext, keys: readonly KeyJson[]): Promise<void> {
  const hashes = await Promise.all(keys.map(hashOf))
  await state.update((transaction) => {
    for (const hash of hashes) {
      const [id, record] = findByHash(transaction, ONE_TIME_KEYS, hash) ?? []
      if (id === undefined || record === undefined) continue
      const detail = isPublic(record) ? 'claimed by its own device to empty the pool' : record.detail
      moveTo(
        transaction,
        ONE_TIME_KEYS,
        id,
        'removed',
        settings.now(),
        detail === undefined ? {} : { detail },
      )
    }
  })
}

async function noteCounts({ state }: GuardContext, counts: Counts): Promise<void> {
  await state.update((transaction) => {
    const learned = { counts, keyPool: undefined, begunAt: transaction.generation, isChange: true }
    const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
  })
}

function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(REQUEST_ID_BYTES))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
