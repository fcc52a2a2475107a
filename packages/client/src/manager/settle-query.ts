/** Applies answers to queries: the server's level, the device's identity, the pool. */
import type { JsonObject } from '@latchkey/protocol'
import { decodePool, isFinal } from '../server/answers.ts'
import { levelOf } from '../server/capabilities.ts'
import { readIdentity } from './identity.ts'
import { countAction } from './rate-limit.ts'
import { noteLevel, report } from './pool-check.ts'
import { reconcilePool } from './reconcile-pool.ts'
import type { QueryType } from './requests.ts'
import type { Step } from './step.ts'

/** Applies an answer. Returns whether the query is settled. */
export function settleQuery(
  step: Step,
  { type, begunAt }: { readonly type: QueryType; readonly begunAt: number },
  { status, body }: { readonly status: number; readonly body: JsonObject },
): boolean {
  const isOk = status >= 200 && status < 300
  // Without an answer the request did not reach the server.
  if (type !== 'versions' && status !== 0) countAction(step, type)
  switch (type) {
    case 'versions':
      if (isFinal(status)) noteLevel(step, isOk ? levelOf(body) : 'bare')
      return isFinal(status)
    case 'keys_query':
      return isOk && readIdentity(step, body)
    case 'keys_pool': {
      const pool = isOk ? decodePool(body) : undefined
      if (pool !== undefined) reconcilePool(step, pool, begunAt)
      else if (isFinal(status)) {
        const cause = step.status.poolReadCause ?? 'unknown_keys'
        step.patch({ poolReadCause: undefined })
        report(step, cause, [], `the server does not return its pool (${status})`)
      }
      return isFinal(status)
    }
  }
}
