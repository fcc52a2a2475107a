/** Pause after an unsettled request: as the server asks, or exponential backoff, within limits. */
import type { JsonObject } from '@latchkey/protocol'
import type { Step } from './step.ts'

const FIRST_MS = 1_000
const LONGEST_MS = 300_000

/** Records a failed request, or (undefined) a settled one. */
export function noteFailure(
  step: Step,
  failure: { readonly answer: JsonObject; readonly retryAfterMs: number | undefined } | undefined,
): void {
  if (failure === undefined) {
    step.patch({ retry: undefined })
    return
  }
  // Consecutive refusals count even if other requests succeed in between.
  const failures = Math.max((step.status.retry?.failures ?? 0) + 1, step.status.refusals)
  const inBody = failure.answer['retry_after_ms']
  const asked = failure.retryAfterMs ?? (typeof inBody === 'number' ? inBody : 0)
  const backoff = FIRST_MS * 2 ** Math.min(failures - 1, 20)
  // A server may ask for more than the backoff, up to a limit.
  const waitMs = Math.min(LONGEST_MS, Math.max(asked, backoff))
  step.patch({ retry: { at: step.now, waitMs, failures } })
}
