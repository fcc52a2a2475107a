/**
 * Chooses the due request: one at a time, because each answer affects the next choice.
 *
 *     versions (once per open) -> identity check (before the first upload, and after a server change)
 *       -> reset of a heal -> pool read -> stored upload -> new upload
 */
import { POOL_PATH } from '@latchkey/protocol'
import type { View } from '../store/stored-state.ts'
import { isAllowed } from './rate-limit.ts'
import { hasElapsed } from './pool-check.ts'
import { POOL_QUERY } from './reconcile-pool.ts'
import { PENDING, type PendingRequest, type RateLimitedAction } from './records.ts'
import { accountOf, type Settings, statusOf } from './step.ts'
import { planReplacement, planUpload, type UploadPlan } from './upload.ts'

/** A request for the app to send unchanged, with its access token. */
export type OutgoingRequest = {
  /** For `markRequestAsSent`. */
  readonly id: string
  readonly type: 'keys_upload' | 'keys_reset' | 'keys_pool' | 'versions' | 'keys_query'
  readonly method: 'GET' | 'POST'
  /** Path and query, to be appended to the server's base URL. */
  readonly path: string
  /** JSON text, to be sent unchanged. */
  readonly body?: string
}

/** The answer to an outgoing request. */
export type RequestAnswer = {
  /** The HTTP status; 0 when no answer came. */
  readonly status: number
  /** The answer's text, or its decoded JSON. */
  readonly body?: unknown
  /** From a `Retry-After` header, ms. */
  readonly retryAfterMs?: number
}

export type QueryType = 'keys_pool' | 'versions' | 'keys_query'

export type Next =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'pending'; readonly request: PendingRequest; readonly generation: number }
  | { readonly kind: 'read'; readonly type: QueryType; readonly generation: number }
  | { readonly kind: 'prepare'; readonly plan: UploadPlan }
  | { readonly kind: 'reset'; readonly generation: number }

/** Chooses the due request. `knowsVersions`: whether this process has asked `/versions`. */
export function nextRequest(view: View, settings: Settings, now: number, knowsVersions: boolean): Next {
  const status = statusOf(view)
  const read = (type: QueryType): Next => ({ kind: 'read', type, generation: view.generation })
  if (status.unusableReason !== undefined) return { kind: 'nothing' }
  if (status.retry !== undefined && !hasElapsed(status.retry, now)) return { kind: 'nothing' }
  if (!knowsVersions) return read('versions')
  const isAllowedNow = (what: RateLimitedAction): boolean => isAllowed(status, what, now)
  if (status.deviceKeys === 'unknown')
    return isAllowedNow('keys_query') ? read('keys_query') : { kind: 'nothing' }
  const heal = view.get(PENDING, 'heal')
  if (heal !== undefined) return { kind: 'pending', request: heal, generation: view.generation }
  if (status.poolReadCause !== undefined && status.level === 'latchkey' && isAllowedNow('keys_pool')) {
    return read('keys_pool')
  }
  const upload = view.get(PENDING, 'upload')
  if (upload !== undefined) return { kind: 'pending', request: upload, generation: view.generation }
  if (status.replaceCause !== undefined && settings.mode === 'heal' && isAllowedNow('keys_reset')) {
    if (status.level !== 'latchkey') return { kind: 'reset', generation: view.generation }
    return { kind: 'prepare', plan: planReplacement(view, settings, now, status.replaceCause) }
  }
  const plan = planUpload(view, settings, now)
  return plan === undefined ? { kind: 'nothing' } : { kind: 'prepare', plan }
}

/** The request of a query. */
export function queryRequest(view: View, id: string, type: QueryType): OutgoingRequest {
  switch (type) {
    case 'versions':
      return { id, type, method: 'GET', path: '/_matrix/client/versions' }
    case 'keys_pool':
      return { id, type, method: 'GET', path: `/_matrix/client/${POOL_PATH}${POOL_QUERY}` }
    case 'keys_query': {
      const { userId, deviceId } = accountOf(view)
      const body = JSON.stringify({ device_keys: { [userId]: [deviceId] } })
      return { id, type, method: 'POST', path: '/_matrix/client/v3/keys/query', body }
    }
  }
}

export function changeRequest({ id, type, path, body }: PendingRequest): OutgoingRequest {
  return { id, type, method: 'POST', path, body }
}
