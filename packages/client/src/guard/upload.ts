/**
 * An upload of the SDK's, guarded. Under the store's lock, so that two tabs never upload at once:
 *
 *     first contact -> adopt | identity changed -> all former keys are lost | IDs used anew -> the SDK's store went back
 *     -> too many keys -> strip them | record as uploading -> forward -> answer -> settle | conflict -> heal, replay
 *
 * Each key is recorded before its request leaves. An answer that is lost leaves them `uploading`: the SDK sends the same
 * upload again, and that one's answer settles them.
 */
import { type Algorithm, KEY_POOL, type KeyName } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import { FALLBACK_KEYS, isPublic, mayBeNamed, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { generatedSoFar, type HashedKey, moveTo, publicKeysOf, recordUploading } from '../ledger/ledger.ts'
import { type Counts, decodeUpload, parseObject } from '../server/answers.ts'
import { judge, learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction, View } from '../store/stored-state.ts'
import { conflictOf, healConflict } from './conflict.ts'
import { disownAll, disownSince, reusedNames, type Target } from './disown.ts'
import { compareByDigest, poolMark, readPool } from './drift.ts'
import {
  guardedDevice,
  putGuardedDevice,
  recordOwner,
  requireOwner,
  serverLevel,
  setLevel,
} from './guarded-device.ts'
import { A_MINUTE_MS, type Guarding, tell } from './guarding.ts'
import { healOnce } from './heal-once.ts'
import {
  type Offer,
  readOffer,
  recordFallbackKeys,
  settleFallbackKeys,
  settleKeys,
  withoutKeys,
} from './offer.ts'
import type { SdkRequest } from './sdk-request.ts'
import { takeBack, takeBackAll } from './withdraw.ts'

/** Bodies beyond this pass unread: servers refuse them. */
const MAX_BODY_CHARS = 10_000_000
const MAX_NAMES_TOLD = 50

export async function guardUpload(guarding: Guarding, request: SdkRequest): Promise<Response> {
  const text = await request.text()
  const body = text.length <= MAX_BODY_CHARS ? parseObject(text) : undefined
  if (body === undefined) return request.send()
  const [offer, level] = await Promise.all([readOffer(body), serverLevel(guarding), requireOwner(guarding)])
  return guarding.state.exclusively(() => upload(guarding, request, offer, level))
}

async function upload(
  guarding: Guarding,
  request: SdkRequest,
  offer: Offer,
  level: ServerLevel,
): Promise<Response> {
  const { state } = guarding
  const isNew = await state.read((view) => guardedDevice(view).reconciledAt === undefined)
  if (level === 'latchkey' && isNew) await readPool(guarding)
  await noteIdentity(guarding, level, offer)
  await giveUpReused(guarding, level, offer)
  const stripped = await surplus(guarding, level, offer)
  await record(guarding, offer, stripped)
  const begunAt = await state.read((view) => view.generation)

  const body = stripped.size === 0 ? undefined : withoutKeys(offer.body, stripped)
  const sent = { ...offer, ...(body !== undefined && { body }) }
  const response = await (body === undefined ? request.send() : request.sendText(JSON.stringify(body)))
  const conflict = await conflictOf(response)
  if (conflict === undefined) await settle(guarding, sent, response, begunAt)
  else {
    const healed = await healConflict(guarding, level, request, sent, conflict)
    if (healed !== undefined) await settle(guarding, sent, healed, begunAt)
  }
  return request.outcome()
}

/** Takes over the identity keys that a device publishes. Others than before: whatever was published is dead. */
async function noteIdentity(guarding: Guarding, level: ServerLevel, { identity }: Offer): Promise<void> {
  if (identity === undefined) return
  const { settings, state } = guarding
  const former = await state.update((transaction) => {
    recordOwner(transaction, identity)
    const { curve25519, ed25519 } = guardedDevice(transaction)
    if (curve25519 === identity.curve25519 && ed25519 === identity.ed25519) return undefined
    putGuardedDevice(transaction, { curve25519: identity.curve25519, ed25519: identity.ed25519 })
    if (curve25519 === undefined) return undefined
    const cause = "the device's identity changed"
    const keys = disownAll(transaction, settings.now(), cause)
    for (const [id, fallback] of transaction.all(FALLBACK_KEYS)) {
      if (mayBeNamed(fallback)) moveTo(transaction, FALLBACK_KEYS, id, 'lost', settings.now(), { cause })
    }
    return { curve25519, keys }
  })
  if (former === undefined) return
  tell(guarding, 'identity_changed', { former: former.curve25519, current: identity.curve25519 })
  // Latchkey purges the pools of a device that changes its identity; a bare server's refusal is healed as a conflict.
  if (level !== 'msc4162') return
  await healOnce(guarding, 'identity_changed', namesOf(former.keys), () => takeBackAll(guarding, level))
}

/** IDs that come anew with other keys: the SDK's store went back, and what it published since is withdrawn. */
async function giveUpReused(guarding: Guarding, level: ServerLevel, { oneTimeKeys }: Offer): Promise<void> {
  const { settings, state } = guarding
  const targets = await state.update((transaction) => {
    const reused = reusedNames(transaction, oneTimeKeys)
    return reused.length === 0 ? [] : disownSince(transaction, reused, settings.now())
  })
  if (targets.length === 0) return
  const keys = namesOf(targets)
  tell(guarding, 'drift', { reason: 'sdk_rolled_back', keys: keys.slice(0, MAX_NAMES_TOLD) })
  await healOnce(guarding, 'sdk_rolled_back', keys, () => takeBack(guarding, level, targets))
}

/**
 * The names of keys that must not be published beside those that are there (matrix-js-sdk 42.3.0 uploads 50 at every
 * sync). Such an SDK also evicts the oldest private halves: before it comes to that, the keys on the server make way.
 */
async function surplus(
  guarding: Guarding,
  level: ServerLevel,
  { oneTimeKeys }: Offer,
): Promise<ReadonlySet<KeyName>> {
  const { settings, state, memory } = guarding
  const { keys, published, mustMakeWay } = await state.read((view) => floodOf(view, oneTimeKeys, settings))
  const stripped = new Set(keys)
  if (stripped.size === 0) return stripped
  if (mustMakeWay.length > 0) {
    const made = await healOnce(guarding, 'private_keys_evicted', namesOf(mustMakeWay), () =>
      takeBack(guarding, level, mustMakeWay),
    )
    if (made) return new Set()
  }
  if (memory.atMostEvery(A_MINUTE_MS, 'flood', settings.now())) {
    tell(guarding, 'flood', { keys: stripped.size, published })
  }
  return settings.mode === 'heal' ? stripped : new Set()
}

type Flood = {
  readonly keys: readonly KeyName[]
  readonly published: number
  readonly mustMakeWay: readonly Target[]
}

function floodOf(
  view: View,
  offered: readonly HashedKey[],
  { maxPublished, sdkSlots }: Guarding['settings'],
): Flood {
  const algorithms = new Set(offered.map(({ name }) => name.slice(0, name.indexOf(':')) as Algorithm))
  for (const algorithm of algorithms) {
    const fresh = offered.filter(
      ({ name, hash }) => name.startsWith(`${algorithm}:`) && isFresh(view, name, hash),
    )
    const ledger = publicKeysOf(view, algorithm)
    const published = view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts[algorithm] ?? ledger.length
    // A pool that is less than half full takes the SDK's batch, whatever its size.
    if (published < maxPublished / 2 || published + fresh.length <= maxPublished) continue
    // Keys leave from the front, so the last of the ledger are those that are there.
    const there = ledger.slice(-published).filter(([, { state }]) => state === 'available')
    const oldest = there[0]?.[1].order ?? Number.POSITIVE_INFINITY
    const isLate = generatedSoFar(view) - oldest > sdkSlots / 2
    const mustMakeWay = isLate ? there.map(([name]) => ({ name, id: name })) : []
    return { keys: fresh.map(({ name }) => name), published, mustMakeWay }
  }
  return { keys: [], published: 0, mustMakeWay: [] }
}

function isFresh(view: View, name: KeyName, hash: string): boolean {
  const record = view.get(ONE_TIME_KEYS, name)
  return record?.hash !== hash || record.state === 'unsent' || record.state === 'withdrawn'
}

async function record(guarding: Guarding, offer: Offer, stripped: ReadonlySet<KeyName>): Promise<void> {
  const { settings, state } = guarding
  const now = settings.now()
  await state.update((transaction) => {
    recordUploading(transaction, offer.oneTimeKeys, now)
    recordFallbackKeys(transaction, offer.fallbackKeys, now)
    for (const name of stripped) {
      moveTo(transaction, ONE_TIME_KEYS, name, 'unsent', now, { cause: 'enough keys were published' })
    }
    expireBeyondSlots(transaction, settings.sdkSlots, now)
  })
}

/** SDKs keep the private halves of so many keys, the latest. */
function expireBeyondSlots(transaction: Transaction, slots: number, now: number): void {
  const last = generatedSoFar(transaction)
  if (last <= slots) return
  const cause = `the SDK keeps ${slots} private keys, and has made more since`
  for (const [id, key] of transaction.all(ONE_TIME_KEYS)) {
    if (key.order <= last - slots && (isPublic(key) || key.state === 'issued')) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'expired', now, { cause })
    }
  }
}

async function settle(guarding: Guarding, offer: Offer, response: Response, begunAt: number): Promise<void> {
  if (response.status !== 200) return
  const body = parseObject(await response.clone().text())
  if (body === undefined) return
  const { settings, state, memory } = guarding
  const answer = decodeUpload(body)
  if (body[KEY_POOL] !== undefined && answer.keyPool !== undefined) setLevel(guarding, 'latchkey')
  const now = settings.now()
  await state.update((transaction) => {
    const sent = offer.oneTimeKeys.filter(({ name }) => isOffered(offer, name))
    settleKeys(transaction, sent, answer, now)
    settleFallbackKeys(transaction, offer.fallbackKeys, answer, now)
    const known = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    const learned = { ...answer, begunAt, isChange: true }
    const freshness = judge(known, learned)
    if (freshness === 'stale') return
    const view = learn(known, learned, transaction.generation)
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, view)
    memory.compared = undefined
    if (answer.keyPool === undefined) return
    const counts: Counts = answer.counts ?? {}
    if (compareByDigest(transaction, answer.keyPool, counts, freshness, now)) memory.suspicion = freshness
    else memory.compared = poolMark(answer.keyPool)
  })
}

function isOffered({ body }: Offer, name: string): boolean {
  const { one_time_keys: keys } = body
  return typeof keys === 'object' && keys !== null && Object.hasOwn(keys, name)
}

function namesOf(targets: readonly Target[]): KeyName[] {
  return targets.map(({ name }) => name)
}
