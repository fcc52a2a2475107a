/** What a sync answer brings beside messages: counts, digests, and what the server says of the fallback key. */
import { isJsonObject, type JsonObject, SIGNED_CURVE25519 } from '@latchkey/protocol'
import { decodeSignals, parseObject } from '../server/answers.ts'
import { judge, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import { generatedToday } from './generation-budget.ts'
import { takeIn } from './pool-check.ts'
import type { Step } from './step.ts'
import { budgetLeft, missingKeys } from './upload.ts'

const DAY_MS = 86_400_000

/** Decoded JSON, or its text. What is neither is an answer that says nothing. */
export function decodeAnswer(answer: unknown): JsonObject {
  if (typeof answer === 'string') return parseObject(answer) ?? {}
  return isJsonObject(answer) ? answer : {}
}

export function toDeviceEvents(sync: JsonObject): readonly unknown[] {
  const toDevice = sync['to_device']
  const events = isJsonObject(toDevice) ? toDevice['events'] : undefined
  return Array.isArray(events) ? events : []
}

/** Takes in what the server says of the device's keys. `begunAt`: the state's generation when the sync was sent. */
export function takeSignals(step: Step, sync: JsonObject, begunAt: number): void {
  const { counts, keyPool, unusedFallbackTypes } = decodeSignals(sync)
  const told = counts?.[SIGNED_CURVE25519]
  const view = step.transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
  const known = view?.counts[SIGNED_CURVE25519]
  const learned = { counts, keyPool, begunAt, isChange: false }
  // Sliding sync may tell of the fallback key alone.
  const freshness =
    counts === undefined && keyPool === undefined
      ? judge(view, learned, step.transaction.generation)
      : takeIn(step, learned)
  if (freshness === 'stale') {
    if (known !== undefined && told !== known) step.tell('stale_count', { told, used: known })
    return
  }
  if (unusedFallbackTypes === undefined) return
  const isUsed = !unusedFallbackTypes.includes(SIGNED_CURVE25519)
  const { fallbackWanted } = step.status
  if (isUsed && fallbackWanted === undefined) step.patch({ fallbackWanted: 'used' })
  if (!isUsed && fallbackWanted === 'used') step.patch({ fallbackWanted: undefined })
}

/** Tells once a day that no more keys may be made although some are missing. */
export function noteLimited(step: Step): void {
  const { status, settings, now, transaction } = step
  if (missingKeys(transaction) === 0 || budgetLeft(transaction, settings, now) > 0) return
  if (status.limitedAt !== undefined && status.limitedAt <= now && now - status.limitedAt < DAY_MS) return
  step.patch({ limitedAt: now })
  step.tell('generation_limited', {
    generated: generatedToday(status, now),
    perDay: settings.newKeysPerDay,
  })
}
