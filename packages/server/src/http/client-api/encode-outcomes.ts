/** Response members of upload and reset beyond the specification (extensions.md). */
import { EVICTED, FALLBACK_OUTCOMES, KEY_POOL, OUTCOMES, STORED_AS } from '@latchkey/protocol'
import { keyPoolOf } from '../../pool/pool-answer.ts'
import type { UploadResult } from '../../pool/commands.ts'

export function outcomeMembers(result: Omit<UploadResult, 'purged'>): Record<string, unknown> {
  return {
    [OUTCOMES]: Object.fromEntries(result.outcomes),
    [FALLBACK_OUTCOMES]: Object.fromEntries(result.fallbackOutcomes),
    [STORED_AS]: Object.fromEntries(result.storedAs),
    [EVICTED]: result.evicted,
    [KEY_POOL]: keyPoolOf(result.status),
  }
}
