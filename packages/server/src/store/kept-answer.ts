/** The answer of a reset as it is kept for replay, the same in every store: JSON, its maps as entries (pool/reset.ts). */
import type { FallbackOutcome, KeyName, UploadOutcome } from '@latchkey/protocol'
import type { ResetResult } from '../pool/port.ts'

type KeptAnswer = Omit<ResetResult, 'outcomes' | 'fallbackOutcomes' | 'storedAs'> & {
  readonly outcomes: readonly [KeyName, UploadOutcome][]
  readonly fallbackOutcomes: readonly [KeyName, FallbackOutcome][]
  readonly storedAs: readonly [KeyName, KeyName][]
}

export function encodeAnswer(result: ResetResult): string {
  const kept: KeptAnswer = {
    ...result,
    outcomes: [...result.outcomes],
    fallbackOutcomes: [...result.fallbackOutcomes],
    storedAs: [...result.storedAs],
  }
  return JSON.stringify(kept)
}

export function decodeAnswer(text: string): ResetResult {
  const kept = JSON.parse(text) as KeptAnswer
  return {
    ...kept,
    outcomes: new Map(kept.outcomes),
    fallbackOutcomes: new Map(kept.fallbackOutcomes),
    storedAs: new Map(kept.storedAs),
  }
}
