/**
 * Uploads forwarded while the guard cannot work, because the store fails or its lock is held. Their keys belong to the
 * device all the same: they are recorded as soon as the store accepts them, before the upload is sent if possible;
 * otherwise they would later be withdrawn as unknown. Only a reload before that loses them.
 */
import { recordUploading } from '../ledger/ledger.ts'
import { decodeUpload, parseObject, type UploadAnswer } from '../server/answers.ts'
import { newKeysIn } from './upload-limit.ts'
import { detectStoreReplacement } from './detect-store-replacement.ts'
import { requireOwner } from './guarded-device.ts'
import type { GuardContext, GuardMemory } from './context.ts'
import type { KeyTraffic } from './key-traffic.ts'
import { chargeNewKeys } from './new-key-budget.ts'
import {
  decodePayload,
  recordFallbackKeys,
  settleFallbackKeys,
  settleKeys,
  type UploadPayload,
} from './upload-payload.ts'
import type { SdkRequest } from './sdk-request.ts'

export type UnguardedUpload = {
  readonly token: string
  readonly payload: UploadPayload
  /** The server's answer, if its status was 200. */
  readonly answer: UploadAnswer | undefined
}

/** Uploads kept in memory; the oldest are dropped first. */
const MAX_UNGUARDED_UPLOADS = 20

/** Sends the request, or returns its outcome if it was sent. `record` runs `recordUnguardedUploads`. */
export async function forwardUnguarded(
  memory: GuardMemory,
  { kind, token }: KeyTraffic,
  request: SdkRequest,
  record: () => Promise<void>,
): Promise<Response> {
  const hasKeys = kind === 'upload' || kind === 'reset'
  if (!hasKeys || request.wasSent) return request.outcome()
  const payload = await payloadOf(request).catch(() => undefined)
  if (payload === undefined) return request.outcome()
  const note = async (answer: UploadAnswer | undefined): Promise<void> => {
    memory.unguardedUploads = [...memory.unguardedUploads, { token, payload, answer }].slice(
      -MAX_UNGUARDED_UPLOADS,
    )
    // If the store fails now, the next request tries again.
    await record().catch(() => undefined)
  }
  await note(undefined)
  const response = await request.outcome()
  if (response.status === 200) {
    const text = await response.clone().text()
    await note(decodeUpload(parseObject(text) ?? {}))
  }
  return response
}

/** Records the unguarded uploads in the ledger. @throws {StoreError} */
export async function recordUnguardedUploads(context: GuardContext): Promise<void> {
  const { memory, settings, state, traffic } = context
  if (memory.unguardedUploads.length === 0) return
  await requireOwner(context)
  const own = memory.unguardedUploads.filter(
    ({ token }) => token === traffic.token || memory.owners.get(token)?.isOwn === true,
  )
  const now = settings.now()
  await state.update((transaction) => {
    for (const { payload, answer } of own) {
      detectStoreReplacement(transaction, context, payload)
      chargeNewKeys(transaction, newKeysIn(transaction, payload.oneTimeKeys).length, now)
      recordUploading(transaction, payload.oneTimeKeys, now)
      recordFallbackKeys(transaction, payload.fallbackKeys, now)
      if (answer === undefined) continue
      settleKeys(transaction, payload.oneTimeKeys, answer, now)
      settleFallbackKeys(transaction, payload.fallbackKeys, answer, now)
    }
  })
  memory.unguardedUploads = memory.unguardedUploads.filter((it) => !own.includes(it))
}

async function payloadOf(request: SdkRequest): Promise<UploadPayload | undefined> {
  const body = parseObject(await request.text())
  return body && decodePayload(body)
}
