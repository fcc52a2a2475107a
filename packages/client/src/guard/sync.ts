/**
 * A sync of the SDK's, guarded: its counts are the newest that are known, what it tells of the pool is held against the
 * ledger, and the keys that its messages name are noted. An answer in which nothing is to be changed is returned as it
 * came; one that brings no news writes nothing.
 */
import { isJsonObject, type JsonObject, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'
import {
  type Counts,
  COUNTS,
  decodeSignals,
  decodeUpload,
  parseObject,
  type SyncSignals,
} from '../server/answers.ts'
import { type Freshness, isKnown, judge, learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { compareByDigest, poolMark, readAndHeal } from './drift.ts'
import { guardedDevice, requireOwner, serverLevel, setLevel } from './guarded-device.ts'
import { A_MINUTE_MS, type Guarding, tell } from './guarding.ts'
import { type Named, namedKeys, type NamedTwice, noteNamed, toDeviceEvents } from './namings.ts'
import { rewrittenResponse } from './rewritten-response.ts'
import type { SdkRequest } from './sdk-request.ts'
import { spliceMember } from './splice.ts'

/** Answers beyond this pass unread, as a first sync of a large account may be. */
const MAX_ANSWER_CHARS = 50_000_000

/** Where the device's own signals and messages stand in an answer. */
type Place = { readonly path: readonly string[]; readonly signals: JsonObject; readonly messages: JsonObject }

export async function guardSync(guarding: Guarding, request: SdkRequest): Promise<Response> {
  const { state, traffic } = guarding
  const begun = await state.read((view) => ({ at: view.generation, ownKey: guardedDevice(view).curve25519 }))
  const ready = Promise.all([serverLevel(guarding), requireOwner(guarding)])
  // Its failure counts when it is waited for, below.
  ready.catch(() => undefined)
  const response = await request.send()
  if (response.status !== 200) return response
  const text = await response.clone().text()
  const answer = text.length <= MAX_ANSWER_CHARS ? parseObject(text) : undefined
  const place = answer && placeOf(answer, traffic.kind)
  if (place === undefined) return response
  const [level] = await ready
  const told = decodeSignals(place.signals)
  if (told.keyPool !== undefined) setLevel(guarding, 'latchkey')
  const named = await namedKeys(toDeviceEvents(place.messages), begun.ownKey)
  const counts = await newestCounts(guarding, { told, named, begunAt: begun.at, level })
  if (counts === undefined || guarding.settings.mode !== 'heal') return response
  const spliced = spliceMember(text, [...place.path, COUNTS], JSON.stringify({ ...told.counts, ...counts }))
  return spliced === undefined ? response : rewrittenResponse(response, spliced)
}

function placeOf(answer: JsonObject, kind: Guarding['traffic']['kind']): Place | undefined {
  if (kind === 'sync') return { path: [], signals: answer, messages: answer }
  const { extensions } = answer
  if (!isJsonObject(extensions)) return undefined
  const { e2ee } = extensions
  // A sliding sync has its to-device events right under the extension.
  return { path: ['extensions', 'e2ee'], signals: isJsonObject(e2ee) ? e2ee : {}, messages: extensions }
}

type Answered = {
  readonly told: SyncSignals
  readonly named: readonly Named[]
  readonly begunAt: number
  readonly level: ServerLevel
}

/** The counts that the SDK should see instead of those that it was told; undefined when those are right. */
async function newestCounts(guarding: Guarding, answered: Answered): Promise<Counts | undefined> {
  const { memory, settings, state } = guarding
  const { told } = answered
  const now = settings.now()
  const noted = await state.update((transaction) => note(guarding, transaction, answered, now))
  for (const { key, senders } of noted.twice) tell(guarding, 'key_named_twice', { key, senders })
  let { counts } = noted
  if (noted.compared !== undefined) memory.compared = noted.compared
  if (noted.isSuspect && (now >= memory.compareNotBefore || now < memory.compareNotBefore - A_MINUTE_MS)) {
    const suspicion = memory.suspicion ?? noted.freshness
    memory.suspicion = undefined
    counts = (await inTime(guarding, () => settleDrift(guarding, suspicion))) ?? counts
  }
  const used = counts?.[SIGNED_CURVE25519]
  const known = told.counts?.[SIGNED_CURVE25519]
  if (noted.freshness === 'stale' && used !== undefined && used !== known) {
    tell(guarding, 'stale_count', { told: known, used })
  }
  if (known === undefined && used !== undefined && guarding.traffic.kind === 'sync') {
    return (await askCounts(guarding)) ?? counts
  }
  return used === undefined || used === known || known === undefined ? undefined : counts
}

type Noted = {
  readonly freshness: Freshness
  /** The newest counts that are known. */
  readonly counts: Counts | undefined
  readonly isSuspect: boolean
  readonly compared: string | undefined
  readonly twice: readonly NamedTwice[]
}

function note(
  { memory }: Guarding,
  transaction: Transaction,
  { told, named, begunAt, level }: Answered,
  now: number,
): Noted {
  const { counts, keyPool } = told
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  const learned = { counts, keyPool, begunAt, isChange: false }
  const freshness = judge(view, learned)
  const isNews = freshness !== 'newer' || !isKnown(view, learned)
  const mark = keyPool && poolMark(keyPool)
  let isSuspect = false
  let compared: string | undefined
  if (freshness !== 'stale') {
    if (isNews && (counts !== undefined || keyPool !== undefined)) {
      transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
    }
    if (keyPool !== undefined && (isNews || memory.compared !== mark)) {
      isSuspect = compareByDigest(transaction, keyPool, counts ?? {}, freshness, now)
      if (!isSuspect) compared = mark
    }
  }
  const twice = noteNamed(transaction, named, keyPool === undefined ? level : 'latchkey', now)
  return {
    freshness,
    counts: transaction.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts,
    isSuspect,
    compared,
    twice,
  }
}

/** Under the lock: an upload that was under way may have explained it meanwhile; else the pool says. */
function settleDrift(guarding: Guarding, freshness: Freshness): Promise<Counts | undefined> {
  const { memory, settings, state } = guarding
  return state.exclusively(async () => {
    const settled = await state.update((transaction) => {
      const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
      if (view?.keyPool === undefined) return undefined
      const isSuspect = compareByDigest(transaction, view.keyPool, view.counts, freshness, settings.now())
      return isSuspect ? undefined : { counts: view.counts, mark: poolMark(view.keyPool) }
    })
    if (settled === undefined) return readAndHeal(guarding, freshness)
    memory.compared = settled.mark
    return settled.counts
  })
}

/** A sync goes on after the guard's timeout, whatever a heal, or another tab that holds the lock, still does. */
async function inTime<T>({ settings }: Guarding, work: () => Promise<T>): Promise<T | undefined> {
  const { promise: late, resolve } = deferred<undefined>()
  const timer = setTimeout(() => resolve(undefined), settings.timeoutMs)
  const done = work()
  done.catch(() => undefined)
  try {
    return await Promise.race([done, late])
  } finally {
    clearTimeout(timer)
  }
}

/** `Promise.withResolvers`, which not every browser has that SDKs support. */
function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let settle: ((value: T) => void) | undefined
  const promise = new Promise<T>((resolve) => (settle = resolve))
  return { promise, resolve: (value) => settle?.(value) }
}

/** The server's true counts, where a sync has none: an empty upload answers them. At most once a minute. */
async function askCounts({ memory, server, settings, state }: Guarding): Promise<Counts | undefined> {
  if (settings.mode !== 'heal') return undefined
  if (!memory.atMostEvery(A_MINUTE_MS, 'counts', settings.now())) return undefined
  const begunAt = await state.read((view) => view.generation)
  const { status, body } = await server.upload({}).catch(() => ({ status: 0, body: {} }))
  const { counts, keyPool } = decodeUpload(body)
  if (status !== 200 || counts === undefined) return undefined
  return state.update((transaction) => {
    const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
    const learned = { counts, keyPool, begunAt, isChange: false }
    if (judge(view, learned) === 'stale') return view?.counts
    transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
    return counts
  })
}
