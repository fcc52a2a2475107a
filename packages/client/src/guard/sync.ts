/**
 * Guards a sync of the SDK: corrects its counts to the newest known ones, compares its pool state with the ledger, and
 * records the keys seen in its messages. An answer that needs no change is returned unchanged; one without new
 * information writes nothing.
 */
import { isJsonObject, type JsonObject, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { deferred } from '../es2023.ts'
import type { ServerLevel } from '../events.ts'
import { type Counts, COUNTS, decodeSignals, parseObject, type SyncSignals } from '../server/answers.ts'
import {
  classifyAnswer,
  type Freshness,
  isKnown,
  learn,
  SERVER_VIEW,
  SERVER_VIEW_ID,
} from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import { askCounts, countsByDigest, isDoubtful, verifyCounts } from './counts.ts'
import { compareByDigest, poolVersion, readAndHeal } from './drift.ts'
import { guardedDevice, requireOwner, serverLevel, setLevel } from './guarded-device.ts'
import { emitEvent, type GuardContext, MINUTE_MS } from './context.ts'
import {
  type PreKeySighting,
  preKeySightings,
  recordSightings,
  type SeenTwice,
  toDeviceEvents,
} from './prekey-sightings.ts'
import { countsForSdk, newKeysLeft } from './new-key-budget.ts'
import { rewrittenResponse } from './rewritten-response.ts'
import type { SdkRequest } from './sdk-request.ts'
import { spliceMember } from './splice.ts'
import { isWithdrawalDue, withdrawPending } from './withdraw-pending.ts'

/** Longer answers pass unread, for example the first sync of a large account. */
const MAX_ANSWER_CHARS = 50_000_000

/** Where an answer holds the device's signals and messages. */
type Place = { readonly path: readonly string[]; readonly signals: JsonObject; readonly messages: JsonObject }

export async function guardSync(context: GuardContext, request: SdkRequest): Promise<Response> {
  const { state, traffic } = context
  const begun = await state.read((view) => ({ at: view.generation, ownKey: guardedDevice(view).curve25519 }))
  const ready = Promise.all([serverLevel(context), requireOwner(context)])
  // A failure is handled where this is awaited, below.
  ready.catch(() => undefined)
  const response = await request.send()
  if (response.status !== 200) return response
  const text = await response.clone().text()
  const answer = text.length <= MAX_ANSWER_CHARS ? parseObject(text) : undefined
  const place = answer && placeOf(answer, traffic.kind)
  if (place === undefined) return response
  const [level] = await ready
  const received = decodeSignals(place.signals)
  if (received.keyPool !== undefined) setLevel(context, 'latchkey')
  const sightings = await preKeySightings(toDeviceEvents(place.messages), begun.ownKey)
  const counts = await newestCounts(context, { received, sightings, begunAt: begun.at, level })
  if (counts === undefined || context.settings.mode !== 'heal') return response
  const spliced = spliceMember(
    text,
    [...place.path, COUNTS],
    JSON.stringify({ ...received.counts, ...counts }),
  )
  return spliced === undefined ? response : rewrittenResponse(response, spliced)
}

function placeOf(answer: JsonObject, kind: GuardContext['traffic']['kind']): Place | undefined {
  if (kind === 'sync') return { path: [], signals: answer, messages: answer }
  const { extensions } = answer
  if (!isJsonObject(extensions)) return undefined
  const { e2ee } = extensions
  // In a sliding sync the to-device events are directly under the extension.
  return { path: ['extensions', 'e2ee'], signals: isJsonObject(e2ee) ? e2ee : {}, messages: extensions }
}

type SyncInput = {
  readonly received: SyncSignals
  readonly sightings: readonly PreKeySighting[]
  readonly begunAt: number
  readonly level: ServerLevel | undefined
}

/** The counts that the SDK should see instead of the received ones; undefined when those are right. */
async function newestCounts(context: GuardContext, answered: SyncInput): Promise<Counts | undefined> {
  const { memory, settings, state } = context
  const now = settings.now()
  const noted = await state.update((transaction) => recordSync(context, transaction, answered, now))
  for (const { key, senders } of noted.twice) emitEvent(context, 'key_seen_twice', { key, senders })
  let { counts } = noted
  if (noted.doubtful !== undefined)
    counts = (await verifyCounts(context, noted.doubtful, answered.begunAt)) ?? counts
  if (noted.compared !== undefined) memory.compared = noted.compared
  if (noted.mustWithdraw) {
    counts = (await inTime(context, () => state.exclusively(() => withdrawPending(context)))) ?? counts
  }
  if (noted.isSuspect && memory.mayRead(now)) {
    counts = (await inTime(context, () => resolveDrift(context))) ?? counts
  }
  const received = answered.received.counts?.[SIGNED_CURVE25519]
  if (noted.isWrong || noted.doubtful !== undefined) emitStaleCount(context, received, counts)
  if (received === undefined) {
    // A sliding sync reports changes only.
    if (counts === undefined || context.traffic.kind === 'sliding_sync') return undefined
    const asked = await askCounts(context)
    if (asked !== undefined && asked !== 'refused') counts = asked
  }
  const shown = countsForSdk(context, counts, noted.left)
  return shown?.[SIGNED_CURVE25519] === received ? undefined : shown
}

/** Emits `stale_count`; for the same numbers once a minute. */
function emitStaleCount(
  context: GuardContext,
  received: number | undefined,
  counts: Counts | undefined,
): void {
  const { memory, settings } = context
  const used = counts?.[SIGNED_CURVE25519]
  if (used === undefined || used === received) return
  if (!memory.atMostEvery(MINUTE_MS, `stale_count ${received} ${used}`, settings.now())) return
  emitEvent(context, 'stale_count', { received, used })
}

type SyncFindings = {
  readonly freshness: Freshness
  /** The newest known counts. */
  readonly counts: Counts | undefined
  /** Counts that need verification before they are trusted. */
  readonly doubtful: Counts | undefined
  /** Whether the answer's counts are stale, or contradicted by its digest. */
  readonly isWrong: boolean
  readonly isSuspect: boolean
  /** Whether a postponed withdrawal is due now. */
  readonly mustWithdraw: boolean
  readonly compared: string | undefined
  readonly twice: readonly SeenTwice[]
  /** New keys that may still be published today. */
  readonly left: number
}

function recordSync(
  context: GuardContext,
  transaction: Transaction,
  { received, sightings, begunAt, level }: SyncInput,
  now: number,
): SyncFindings {
  const { memory, settings } = context
  const { keyPool } = received
  const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  const right = countsByDigest(transaction, received.counts, keyPool)
  const isDoubted = settings.mode === 'heal' && isDoubtful(transaction, received)
  const counts = isDoubted ? undefined : right
  const learned = { counts, keyPool, begunAt, isChange: false }
  const freshness = classifyAnswer(view, learned, transaction.generation)
  const isNews = freshness !== 'newer' || !isKnown(view, learned)
  const mark = keyPool && poolVersion(keyPool)
  let isSuspect = false
  let compared: string | undefined
  if (freshness !== 'stale') {
    if (isNews && (counts !== undefined || keyPool !== undefined)) {
      transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
    }
    if (keyPool !== undefined && (isNews || memory.compared !== mark)) {
      isSuspect = compareByDigest(transaction, memory, keyPool, freshness, now)
      if (!isSuspect) compared = mark
    }
  }
  const twice = recordSightings(transaction, sightings, keyPool === undefined ? level : 'latchkey', now)
  return {
    freshness,
    counts: transaction.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts,
    doubtful: isDoubted && freshness !== 'stale' ? received.counts : undefined,
    isWrong: freshness === 'stale' || right?.[SIGNED_CURVE25519] !== received.counts?.[SIGNED_CURVE25519],
    isSuspect,
    mustWithdraw: isWithdrawalDue(context, transaction),
    compared,
    twice,
    left: newKeysLeft(transaction, settings),
  }
}

/** Under the lock: an upload in progress may have explained the drift by now; otherwise reads the pool. */
function resolveDrift(context: GuardContext): Promise<Counts | undefined> {
  const { memory, settings, state } = context
  return state.exclusively(async () => {
    const settled = await state.update((transaction) => {
      const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
      if (view?.keyPool === undefined) return undefined
      const isSuspect = compareByDigest(transaction, memory, view.keyPool, 'newer', settings.now())
      return isSuspect ? undefined : { counts: view.counts, mark: poolVersion(view.keyPool) }
    })
    if (settled === undefined) return readAndHeal(context)
    memory.compared = settled.mark
    return settled.counts
  })
}

/** Waits for `work` up to the guard's timeout, so that a sync never hangs on a heal or on another tab's lock. */
async function inTime<T>({ settings }: GuardContext, work: () => Promise<T>): Promise<T | undefined> {
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
