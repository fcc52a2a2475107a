/**
 * Guards an upload of the SDK. Runs under the store's lock, so two tabs never upload at once:
 *
 *     first contact                 -> adopt the pool
 *     identity changed              -> all former keys are lost
 *     known IDs with other keys     -> the SDK's store was rolled back: abandon the lost keys
 *     then: withdraw abandoned keys -> withhold keys over the limit -> record as uploading -> forward
 *           -> settle by the answer | conflict: heal, replay
 *
 * Each key is recorded before its request is sent. A lost answer leaves the keys `uploading`: the SDK repeats the
 * upload, and the answer to that settles them.
 */
import { KEY_POOL, type KeyName, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { isPublic, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { generatedSoFar, moveTo, recordUploading } from '../ledger/ledger.ts'
import { type Counts, decodeUpload, parseObject, UPLOAD_COUNTS } from '../server/answers.ts'
import { classifyAnswer, learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { conflictOf, healConflict } from './conflict.ts'
import { countsByDigest } from './counts.ts'
import { compareByDigest, poolVersion, readPool } from './drift.ts'
import { keysOverLimit, newKeysIn } from './upload-limit.ts'
import { detectStoreReplacement } from './detect-store-replacement.ts'
import { guardedDevice, knownLevel, requireOwner, serverLevel, setLevel } from './guarded-device.ts'
import { emitDrift, emitEvent, type GuardContext } from './context.ts'
import { chargeNewKeys, countsForSdk, newKeysLeft } from './new-key-budget.ts'
import {
  decodePayload,
  recordFallbackKeys,
  settleFallbackKeys,
  settleKeys,
  type UploadPayload,
  withoutKeys,
} from './upload-payload.ts'
import { withStoreLock } from './store-lock.ts'
import { rewrittenResponse } from './rewritten-response.ts'
import type { SdkRequest } from './sdk-request.ts'
import { spliceMember } from './splice.ts'
import { namesOf } from './pending-withdrawals.ts'
import { withdrawPending } from './withdraw-pending.ts'

/** Longer bodies pass unread: servers refuse them. */
const MAX_BODY_CHARS = 10_000_000

export async function guardUpload(context: GuardContext, request: SdkRequest): Promise<Response> {
  const text = await request.text()
  const body = text.length <= MAX_BODY_CHARS ? parseObject(text) : undefined
  if (body === undefined) return request.send()
  const [payload] = await Promise.all([decodePayload(body), serverLevel(context), requireOwner(context)])
  return withStoreLock(context, () => upload(context, request, payload))
}

async function upload(context: GuardContext, request: SdkRequest, payload: UploadPayload): Promise<Response> {
  const { state } = context
  const isNew = await state.read((view) => guardedDevice(view).reconciledAt === undefined)
  if (knownLevel(context) === 'latchkey' && isNew) await readPool(context)
  await handleStoreReplacement(context, payload)
  await withdrawPending(context)
  const withheld = await keysOverLimit(context, payload)
  await record(context, payload, withheld)
  const begunAt = await state.read((view) => view.generation)

  const body = withheld.size === 0 ? undefined : withoutKeys(payload.body, withheld)
  const sent = { ...payload, ...(body !== undefined && { body }) }
  const response = await (body === undefined ? request.send() : request.sendText(JSON.stringify(body)))
  const conflict = await conflictOf(context, response)
  const accepted = conflict === undefined ? response : await healConflict(context, request, sent, conflict)
  const counts = accepted && (await settle(context, sent, accepted, begunAt))
  return withCounts(context, await request.outcome(), counts)
}

/** The answer with corrected counts, if the SDK should see others than the server's. */
async function withCounts(
  { settings }: GuardContext,
  response: Response,
  counts: Counts | undefined,
): Promise<Response> {
  if (counts === undefined || settings.mode !== 'heal') return response
  const spliced = spliceMember(await response.clone().text(), [UPLOAD_COUNTS], JSON.stringify(counts))
  return spliced === undefined ? response : rewrittenResponse(response, spliced)
}

/** Abandons keys of a replaced store, and emits what was detected. */
async function handleStoreReplacement(context: GuardContext, payload: UploadPayload): Promise<void> {
  const { former, reused } = await context.state.update((transaction) =>
    detectStoreReplacement(transaction, context, payload),
  )
  if (former !== undefined && payload.identity !== undefined) {
    emitEvent(context, 'identity_changed', { former, current: payload.identity.curve25519 })
  }
  if (reused.length > 0) emitDrift(context, 'sdk_rollback', namesOf(reused))
}

async function record(
  context: GuardContext,
  payload: UploadPayload,
  withheld: ReadonlySet<KeyName>,
): Promise<void> {
  const { settings, state } = context
  const now = settings.now()
  await state.update((transaction) => {
    const fresh = newKeysIn(transaction, payload.oneTimeKeys).filter((name) => !withheld.has(name))
    chargeNewKeys(transaction, fresh.length, now)
    recordUploading(transaction, payload.oneTimeKeys, now)
    recordFallbackKeys(transaction, payload.fallbackKeys, now)
    for (const name of withheld) {
      moveTo(transaction, ONE_TIME_KEYS, name, 'unsent', now, {
        detail: 'withheld: enough keys were published',
      })
    }
    expireBeyondSlots(transaction, settings.sdkSlots, now)
  })
}

/** Expires keys beyond the private halves that the SDK keeps. */
function expireBeyondSlots(transaction: Transaction, slots: number, now: number): void {
  const last = generatedSoFar(transaction)
  if (last <= slots) return
  const detail = `the SDK keeps ${slots} private keys and has generated more since`
  for (const [id, key] of transaction.all(ONE_TIME_KEYS)) {
    if (key.order <= last - slots && (isPublic(key) || key.state === 'issued')) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'expired', now, { detail })
    }
  }
}

/** Settles the sent keys. Returns the counts that the SDK should see; undefined when the answer has them. */
async function settle(
  context: GuardContext,
  payload: UploadPayload,
  response: Response,
  begunAt: number,
): Promise<Counts | undefined> {
  if (response.status !== 200) return undefined
  const body = parseObject(await response.clone().text())
  if (body === undefined) return undefined
  const { settings, state, memory } = context
  const answer = decodeUpload(body)
  if (body[KEY_POOL] !== undefined && answer.keyPool !== undefined) setLevel(context, 'latchkey')
  const now = settings.now()
  const settled = await state.update((transaction) => {
    const sent = payload.oneTimeKeys.filter(({ name }) => isInPayload(payload, name))
    settleKeys(transaction, sent, answer, now)
    settleFallbackKeys(transaction, payload.fallbackKeys, answer, now)
    const counts = countsByDigest(transaction, answer.counts, answer.keyPool)
    const known = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    const learned = { ...answer, counts, begunAt, isChange: true }
    const freshness = classifyAnswer(known, learned, transaction.generation)
    const left = newKeysLeft(transaction, settings)
    if (freshness === 'stale') return { counts: answer.counts, left }
    const view = learn(known, learned, transaction.generation)
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, view)
    memory.compared = undefined
    if (answer.keyPool === undefined) return { counts, left }
    if (!compareByDigest(transaction, memory, answer.keyPool, freshness, now)) {
      memory.compared = poolVersion(answer.keyPool)
    }
    return { counts, left }
  })
  const shown = countsForSdk(context, settled.counts, settled.left)
  return shown?.[SIGNED_CURVE25519] === answer.counts?.[SIGNED_CURVE25519] ? undefined : shown
}

function isInPayload({ body }: UploadPayload, name: string): boolean {
  const { one_time_keys: keys } = body
  return typeof keys === 'object' && keys !== null && Object.hasOwn(keys, name)
}
