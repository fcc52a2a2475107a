/**
 * The answer of a reset with a request ID is remembered for a day and replayed to the same request (key-pool.md
 * "Reset"). It is kept as JSON, its maps as entries.
 */
import type { FallbackOutcome, KeyName, UploadOutcome } from '@latchkey/protocol'
import { limitExceeded, type MatrixError } from '../matrix-error.ts'
import type { ResetResult } from './commands.ts'
import { RETRY_FLOOD_MS } from './limits.ts'

export const REPLAY_RESET_MS = 24 * 60 * 60 * 1000
/** Answers remembered per device. None is dropped within its day: a late duplicate would reset again. */
export const REPLAYED_RESETS_PER_DEVICE = 1_000

type KeptAnswer = Omit<ResetResult, 'outcomes' | 'fallbackOutcomes' | 'storedAs'> & {
  readonly outcomes: readonly [KeyName, UploadOutcome][]
  readonly fallbackOutcomes: readonly [KeyName, FallbackOutcome][]
  readonly storedAs: readonly [KeyName, KeyName][]
}

export function encodeReplay(result: ResetResult): string {
  const kept: KeptAnswer = {
    ...result,
    outcomes: [...result.outcomes],
    fallbackOutcomes: [...result.fallbackOutcomes],
    storedAs: [...result.storedAs],
  }
  return JSON.stringify(kept)
}

export function decodeReplay(text: string): ResetResult {
  const kept = JSON.parse(text) as KeptAnswer
  return {
    ...kept,
    outcomes: new Map(kept.outcomes),
    fallbackOutcomes: new Map(kept.fallbackOutcomes),
    storedAs: new Map(kept.storedAs),
  }
}

export function tooManyResets(): MatrixError {
  return limitExceeded(
    `This device reset its keys ${REPLAYED_RESETS_PER_DEVICE} times with a request ID within 24 hours, which is the limit; nothing was changed.`,
    RETRY_FLOOD_MS,
  )
}
