/** What the answers to questions mean: what the server offers, who it says this device is, what its pool has. */
import type { JsonObject } from '@latchkey/protocol'
import { decodePool } from '../server/answers.ts'
import { levelOf } from '../server/capabilities.ts'
import { readIdentity } from './identity.ts'
import { noteLevel, report } from './pool-check.ts'
import { takePool } from './pool-reading.ts'
import type { Reading } from './requests.ts'
import type { Step } from './step.ts'

/** Takes an answer in. Returns whether the question needs no further try. */
export function settleReading(
  step: Step,
  { type, begunAt }: { readonly type: Reading; readonly begunAt: number },
  { status, body }: { readonly status: number; readonly body: JsonObject },
): boolean {
  const isOk = status >= 200 && status < 300
  switch (type) {
    case 'versions':
      if (isFinal(status)) noteLevel(step, isOk ? levelOf(body) : 'bare')
      return isFinal(status)
    case 'keys_query':
      if (isOk) readIdentity(step, body)
      return isOk
    case 'keys_pool': {
      const pool = isOk ? decodePool(body) : undefined
      if (pool !== undefined) takePool(step, pool, begunAt)
      else if (isFinal(status)) {
        const reason = step.status.poolWanted ?? 'unknown_keys'
        step.patch({ poolWanted: undefined, level: 'msc4162' })
        report(step, reason, [], `the server does not show its pool (${status})`)
      }
      return isFinal(status)
    }
  }
}

/** Whether asking again would bring the same. */
export function isFinal(status: number): boolean {
  return status !== 0 && status !== 429 && status < 500
}
