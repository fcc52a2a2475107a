/**
 * Prepares an upload before it is sent: plans how many keys are missing and allowed, then generate -> sign -> hash ->
 * one durable write of the private halves, the ledger records and the exact text. Only stored text is sent, and the
 * same text until it is answered, also after a crash and by other processes (MSC4162, matrix-rust-sdk#1415, #2930). A
 * write that finds newer state discards the generated keys.
 */
import {
  canonicalJson,
  EPOCH,
  type JsonObject,
  type KeyName,
  REQUEST_ID,
  RESET_UNSTABLE_PATH,
  SIGNED_CURVE25519,
  signedText,
} from '@latchkey/protocol'
import type { HealCause } from '../heal/heals.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { type HashedKey, hashKeys, moveTo, publicKeysOf, recordUploading } from '../ledger/ledger.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import { type FallbackPlan, forgetFallback, formerFallback, mayRotate, planFallback } from './fallback.ts'
import { generatedToday, withGenerated } from './generation-budget.ts'
import { ACCOUNT, type AccountRecord, ONLY, PENDING, type PendingRequest } from './records.ts'
import { areInDoubt, droppable, heldKeys } from './slots.ts'
import { accountOf, type Core, type Settings, statusOf, type Step } from './step.ts'
import { newKeyNames, newRequestId, nextIdTime } from './wire-ids.ts'

const UPLOAD_PATH = '/_matrix/client/v3/keys/upload'
export const RESET_PATH = `/_matrix/client/${RESET_UNSTABLE_PATH}`
const ALGORITHMS = ['m.olm.v1.curve25519-aes-sha2', 'm.megolm.v1.aes-sha2']

/** Consecutive full syncs for which new keys wait: 1 000 messages. */
const MAX_FULL_PAGES = 10

/** Contents of an upload, or of a reset with replacements. */
export type UploadPlan = {
  /** Generation of the state that it was decided on. */
  readonly generation: number
  readonly deviceKeys: boolean
  readonly oneTimeKeys: number
  /** Issued keys to drop first, to free slots. */
  readonly drop: readonly { readonly name: KeyName; readonly key: string }[]
  readonly fallback: FallbackPlan
  /** Set for a reset: replace everything on the server. */
  readonly replace?: HealCause
}

/** Keys to keep on the server: half of the slots, so that the other half may be in flight. */
function targetOf({ slots }: AccountRecord): number {
  return Math.floor(slots / 2)
}

/** Keys missing on the server as far as known: unknown is not zero (matrix-spec#2251). */
export function missingKeys(view: View): number {
  const target = targetOf(accountOf(view))
  const known = view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts[SIGNED_CURVE25519]
  if (known !== undefined) return Math.max(0, target - known)
  // Nothing was ever published, and the server has no device keys: there is nothing to count.
  const isFirst = statusOf(view).deviceKeys === 'missing' && view.all(ONE_TIME_KEYS).size === 0
  return isFirst ? target : 0
}

/** Plans the upload that is due now; undefined when there is none. */
export function planUpload(view: View, settings: Settings, now: number): UploadPlan | undefined {
  const status = statusOf(view)
  const deviceKeys = status.deviceKeys === 'missing'
  const fallback = planFallback(view, settings, now)
  const { oneTimeKeys, drop } = planOneTimeKeys(view, settings, now)
  if (!deviceKeys && oneTimeKeys === 0 && fallback.kind === 'none') return undefined
  return { generation: view.generation, deviceKeys, oneTimeKeys, drop, fallback }
}

/** Plans a reset that replaces everything in one request. */
export function planReplacement(view: View, settings: Settings, now: number, cause: HealCause): UploadPlan {
  const { slots } = accountOf(view)
  // Published keys stay in the account until the answer shows that they were not issued.
  const room = Math.max(0, slots - heldKeys(view))
  const oneTimeKeys = Math.min(targetOf(accountOf(view)), room, budgetLeft(view, settings, now))
  return {
    generation: view.generation,
    deviceKeys: false,
    oneTimeKeys,
    drop: [],
    fallback: mayRotate(view, settings, now)
      ? { kind: 'new', trigger: 'heal' }
      : planFallback(view, settings, now),
    replace: cause,
  }
}

function planOneTimeKeys(
  view: View,
  settings: Settings,
  now: number,
): Pick<UploadPlan, 'oneTimeKeys' | 'drop'> {
  const none = { oneTimeKeys: 0, drop: [] }
  // Keys that waiting messages use seem idle. But a sender who keeps the inbox full must not stop all uploads.
  const { fullPages } = statusOf(view)
  if (fullPages > 0 && fullPages <= MAX_FULL_PAGES) return none
  const account = accountOf(view)
  const wanted = Math.min(missingKeys(view), budgetLeft(view, settings, now))
  if (wanted === 0) return none
  const room = account.slots - heldKeys(view)
  if (room > 0) return { oneTimeKeys: Math.min(wanted, room), drop: [] }
  // No free slot: the fallback key serves. Only an empty pool justifies dropping a key that may still be in flight.
  if (publicKeysOf(view, SIGNED_CURVE25519).length > 0) return none
  const drop = droppable(view)
    .slice(0, Math.min(wanted, Math.ceil(account.slots / 4)) - room)
    .map(([name, { key = '' }]) => ({ name, key }))
  return { oneTimeKeys: Math.max(0, drop.length + room), drop }
}

/**
 * On plain MSC4162, a server that always reports 0 may still have all keys it seems to have issued. Before dropping any
 * to free slots, everything is reset; after that no such key can be issued.
 */
export function requestRoom(step: Step): void {
  const { transaction, settings, now, status } = step
  if (status.level !== 'msc4162' || settings.mode !== 'heal' || status.replaceCause !== undefined) return
  const hasRoom = heldKeys(transaction) < accountOf(transaction).slots
  if (hasRoom || Math.min(missingKeys(transaction), budgetLeft(transaction, settings, now)) === 0) return
  if (publicKeysOf(transaction, SIGNED_CURVE25519).length > 0) return
  if (droppable(transaction).length === 0 && areInDoubt(transaction)) {
    step.patch({ replaceCause: 'private_keys_evicted' })
  }
}

export function budgetLeft(view: View, { newKeysPerDay }: Settings, now: number): number {
  return Math.max(0, newKeysPerDay - generatedToday(statusOf(view), now))
}

/**
 * Generates the keys of a plan and stores everything in one step.
 *
 * @returns false when the state has changed since the plan was made: nothing was done, plan again
 */
export async function prepareUpload(core: Core, plan: UploadPlan): Promise<boolean> {
  const { settings } = core
  const made = await core.state.read((view) => {
    if (view.generation !== plan.generation) return undefined
    const record = accountOf(view)
    return { record, idTime: nextIdTime(statusOf(view).lastIdTime, settings.now()) }
  })
  if (made === undefined) return false
  const { record, idTime } = made
  const batch = makeBatch(core, record, plan, idTime)
  const [oneTimeKeys, fallbackKeys] = await Promise.all([
    hashKeys(batch.oneTimeKeys),
    hashKeys(batch.fallbackKeys),
  ])
  return core.update((step) => {
    if (step.transaction.generation !== plan.generation) return false
    const { transaction, now, status } = step
    for (const { name } of plan.drop) {
      moveTo(transaction, ONE_TIME_KEYS, name, 'expired', now, { detail: 'dropped to free a slot' })
      step.emit('key_dropped', { key: name })
    }
    recordUploading(transaction, oneTimeKeys, now, { withKey: true })
    const [fallback] = fallbackKeys
    if (fallback !== undefined && plan.fallback.kind === 'new') recordFallback(step, fallback)
    transaction.put(ACCOUNT, ONLY, { ...record, pickle: batch.pickle })
    step.patch({
      lastIdTime: idTime,
      ...(oneTimeKeys.length > 0 && { generated: withGenerated(status, oneTimeKeys.length, now) }),
      ...(plan.replace !== undefined && { replaceCause: undefined }),
    })
    const pending = pendingOf(step, plan, batch)
    transaction.put(PENDING, plan.replace === undefined ? 'upload' : 'heal', pending)
    return true
  })
}

function recordFallback(step: Step, { name, key, hash, share }: HashedKey): void {
  const { transaction, now } = step
  // The account keeps two keys: generating this one discarded the previous one.
  const former = formerFallback(transaction)
  if (former !== undefined) forgetFallback(step, former[0], 'replaced in the account by a newer key')
  const orders = [...transaction.all(FALLBACK_KEYS).values()].map(({ order }) => order)
  const order = Math.max(0, ...orders) + 1
  const record = { state: 'uploading', since: now, hash, share, key, batch: order, order } as const
  transaction.put(FALLBACK_KEYS, name, record)
}

type Batch = {
  readonly pickle: string
  readonly deviceKeys: JsonObject | undefined
  readonly oneTimeKeys: Readonly<Record<KeyName, SignedKey>>
  readonly fallbackKeys: Readonly<Record<KeyName, SignedKey>>
}

type SignedKey = JsonObject & { readonly key: string }

/** Generates and signs keys on the account of the stored pickle; they count only once they are stored. */
function makeBatch(core: Core, record: AccountRecord, plan: UploadPlan, idTime: number): Batch {
  const account = core.box.toChange(record.pickle)
  const sign = <T extends JsonObject>(object: T): T & JsonObject => ({
    ...object,
    signatures: { [record.userId]: { [`ed25519:${record.deviceId}`]: account.sign(signedText(object)) } },
  })
  for (const { key } of plan.drop) account.forgetOneTimeKey(key)
  const wanted = plan.oneTimeKeys + (plan.fallback.kind === 'new' ? 1 : 0)
  const names = newKeyNames(idTime, core.settings.random, wanted)
  const keys = plan.oneTimeKeys === 0 ? [] : account.generateOneTimeKeys(plan.oneTimeKeys)
  const oneTimeKeys = Object.fromEntries(keys.map((key, i) => [names[i], sign({ key })]))
  let fallbackKeys = {}
  if (plan.fallback.kind === 'republish') {
    fallbackKeys = { [plan.fallback.name]: sign({ key: plan.fallback.record.key ?? '', fallback: true }) }
  } else if (plan.fallback.kind === 'new') {
    const key = account.generateFallbackKey()
    fallbackKeys = { [names.at(-1) ?? '']: sign({ key, fallback: true }) }
  }
  const deviceKeys = plan.deviceKeys ? sign(deviceKeysOf(record)) : undefined
  return { pickle: core.box.changed(), deviceKeys, oneTimeKeys, fallbackKeys }
}

function deviceKeysOf({ userId, deviceId, curve25519, ed25519 }: AccountRecord): JsonObject {
  return {
    user_id: userId,
    device_id: deviceId,
    algorithms: ALGORITHMS,
    keys: { [`curve25519:${deviceId}`]: curve25519, [`ed25519:${deviceId}`]: ed25519 },
  }
}

function pendingOf(step: Step, plan: UploadPlan, batch: Batch): PendingRequest {
  const { transaction, settings } = step
  const keyPool = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)?.keyPool
  const id = newRequestId(settings.random)
  const [fallbackKey] = Object.keys(batch.fallbackKeys) as KeyName[]
  const oneTimeKeys = Object.keys(batch.oneTimeKeys) as KeyName[]
  const common = {
    id,
    oneTimeKeys,
    ...(keyPool !== undefined && { epoch: keyPool.epoch }),
    ...(fallbackKey !== undefined && { fallbackKey }),
    ...(plan.fallback.kind === 'new' && { fallbackTrigger: plan.fallback.trigger }),
    hasDeviceKeys: batch.deviceKeys !== undefined,
  }
  const keys = {
    ...(oneTimeKeys.length > 0 && { one_time_keys: batch.oneTimeKeys }),
    ...(fallbackKey !== undefined && { fallback_keys: batch.fallbackKeys }),
  }
  if (plan.replace === undefined) {
    const body = canonicalJson({ ...(batch.deviceKeys && { device_keys: batch.deviceKeys }), ...keys })
    return { ...common, type: 'keys_upload', path: UPLOAD_PATH, body }
  }
  const withdrawn = publicKeysOf(transaction, SIGNED_CURVE25519)
    .map(([name]) => name)
    .filter((name) => !Object.hasOwn(batch.oneTimeKeys, name))
  const body = canonicalJson({
    all: true,
    [REQUEST_ID]: id,
    ...(keyPool !== undefined && { [EPOCH]: keyPool.epoch }),
    ...keys,
  })
  const heal = { cause: plan.replace, kind: 'replace', keys: withdrawn } as const
  return { ...common, type: 'keys_reset', path: RESET_PATH, body, heal }
}

/**
 * Stores a reset of everything for servers with plain MSC4162; the replacement keys follow in a separate upload.
 *
 * @returns false when the state has changed since it was decided
 */
export function prepareReset(core: Core, generation: number): Promise<boolean> {
  return core.update((step) => {
    const { transaction, status, settings } = step
    if (transaction.generation !== generation || status.replaceCause === undefined) return false
    transaction.put(PENDING, 'heal', {
      id: newRequestId(settings.random),
      type: 'keys_reset',
      path: RESET_PATH,
      body: '{"all":true}',
      oneTimeKeys: [],
      hasDeviceKeys: false,
      heal: {
        cause: status.replaceCause,
        kind: 'replace',
        keys: publicKeysOf(transaction, SIGNED_CURVE25519).map(([name]) => name),
      },
    })
    step.patch({ replaceCause: undefined })
    return true
  })
}
