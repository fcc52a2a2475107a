/**
 * Applies a sync answer in one step: decrypts its messages, and takes in counts, digests and the state of the fallback
 * key.
 */
import { isJsonObject, type JsonObject, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { decodeSignals, parseObject } from '../server/answers.ts'
import { classifyAnswer, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import { expireFormerFallback } from './fallback.ts'
import { generatedToday } from './generation-budget.ts'
import { type Ciphertext, decryptAll, type Failure, inboxOf } from './inbox.ts'
import { applyServerState } from './pool-check.ts'
import { type DecryptedMessage, INBOX } from './records.ts'
import { expireIssued } from './slots.ts'
import type { Step } from './step.ts'
import { budgetLeft, missingKeys, requestRoom } from './upload.ts'

/** The state at the start of a sync; its answer was computed later. */
export type SyncTicket = { readonly generation: number }

/** To-device events in a sync answer that indicate that more are waiting. */
const FULL_PAGE = 100
/** Unhandled messages beyond which no more are accepted. */
const MAX_UNHANDLED = 10_000
const DAY_MS = 86_400_000

/** Decodes JSON text; an object is returned as it is. Anything else is an empty answer. */
export function decodeAnswer(answer: unknown): JsonObject {
  if (typeof answer === 'string') return parseObject(answer) ?? {}
  return isJsonObject(answer) ? answer : {}
}

export function toDeviceEvents(sync: JsonObject): readonly unknown[] {
  const toDevice = sync['to_device']
  const events = isJsonObject(toDevice) ? toDevice['events'] : undefined
  return Array.isArray(events) ? events : []
}

/** A sync answer, with what the manager knows about it. */
export type SyncInput = {
  readonly sync: JsonObject
  readonly ciphertexts: readonly Ciphertext[]
  /** The state's generation when the sync was sent. */
  readonly begunAt: number
  /** Inbox numbers of messages that the app has handled. */
  readonly handled: readonly string[]
  /** Inbox numbers of messages that an earlier process left. */
  readonly left: ReadonlySet<string>
}

/** Result of one sync, and the messages to hand out. */
export type SyncOutcome = {
  readonly failures: readonly Failure[]
  readonly messages: readonly [string, DecryptedMessage][]
  readonly since: string | undefined
  /** The state's generation after this step. */
  readonly generation: number
}

/** Applies a sync answer: inbox, server view, expiries and sync position, all in this step. */
export function applySync(step: Step, { sync, ciphertexts, begunAt, handled, left }: SyncInput): SyncOutcome {
  const { transaction } = step
  const next = sync['next_batch']
  for (const number of handled) if (transaction.get(INBOX, number)) transaction.delete(INBOX, number)
  if (transaction.all(INBOX).size >= MAX_UNHANDLED) {
    throw new Error(
      `${MAX_UNHANDLED} messages are unhandled: call unhandledMessages() and then messagesHandled()`,
    )
  }
  const { stored, failures } = decryptAll(step, ciphertexts)
  applySignals(step, sync, begunAt)
  expireIssued(step)
  expireFormerFallback(step)
  requestRoom(step)
  step.patch({
    fullPages: toDeviceEvents(sync).length >= FULL_PAGE ? step.status.fullPages + 1 : 0,
    ...(typeof next === 'string' && { since: next }),
  })
  noteLimited(step)
  const ours = new Set([...left, ...stored])
  const messages = inboxOf(transaction.all(INBOX)).filter(([number]) => ours.has(number))
  return { failures, messages, since: step.status.since, generation: transaction.generation + 1 }
}

/** Applies what the server says of the device's keys. `begunAt`: the state's generation when the sync was sent. */
function applySignals(step: Step, sync: JsonObject, begunAt: number): void {
  const { counts, keyPool, unusedFallbackTypes } = decodeSignals(sync)
  const received = counts?.[SIGNED_CURVE25519]
  const view = step.transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  const known = view?.counts[SIGNED_CURVE25519]
  const learned = { counts, keyPool, begunAt, isChange: false }
  // A sliding sync may report the fallback key alone.
  const freshness =
    counts === undefined && keyPool === undefined
      ? classifyAnswer(view, learned, step.transaction.generation)
      : applyServerState(step, learned)
  if (freshness === 'stale') {
    if (known !== undefined && received !== known) step.emit('stale_count', { received, used: known })
    return
  }
  if (unusedFallbackTypes === undefined) return
  const isUsed = !unusedFallbackTypes.includes(SIGNED_CURVE25519)
  const { fallbackAction } = step.status
  if (isUsed && fallbackAction === undefined) step.patch({ fallbackAction: 'used' })
  if (!isUsed && fallbackAction === 'used') step.patch({ fallbackAction: undefined })
}

/** Emits `generation_limited` once a day while keys are missing and the budget is spent. */
export function noteLimited(step: Step): void {
  const { status, settings, now, transaction } = step
  if (missingKeys(transaction) === 0 || budgetLeft(transaction, settings, now) > 0) return
  if (status.limitedAt !== undefined && status.limitedAt <= now && now - status.limitedAt < DAY_MS) return
  step.patch({ limitedAt: now })
  step.emit('generation_limited', {
    generated: generatedToday(status, now),
    perDay: settings.newKeysPerDay,
  })
}
