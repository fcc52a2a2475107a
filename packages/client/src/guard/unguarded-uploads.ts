/**
 * Uploads that pass while the guard cannot do its work: the store fails, or somebody else holds its lock. Their keys are
 * the device's own all the same. They are noted as soon as the store takes them, before the upload leaves if it does so
 * then: otherwise they would be withdrawn later for being unknown. Only what a reload forgets before that is lost.
 */
import { recordUploading } from '../ledger/ledger.ts'
import { decodeUpload, parseObject, type UploadAnswer } from '../server/answers.ts'
import { freshOf } from './upload-limit.ts'
import { giveUp } from './detect-store-replacement.ts'
import { requireOwner } from './guarded-device.ts'
import type { Guarding, Memory } from './context.ts'
import type { KeyTraffic } from './key-traffic.ts'
import { chargeNewKeys } from './new-key-budget.ts'
import { type Offer, readOffer, recordFallbackKeys, settleFallbackKeys, settleKeys } from './upload-payload.ts'
import type { SdkRequest } from './sdk-request.ts'

export type Passed = {
  readonly token: string
  readonly offer: Offer
  /** The server's, when it was a 200. */
  readonly answer: UploadAnswer | undefined
}

/** Uploads that are remembered, the latest. */
const MAX_PASSED = 20

/** Sends the request, or returns what came of it if it was sent. `record`: tries `recordPassed`. */
export async function passUnguarded(
  memory: Memory,
  { kind, token }: KeyTraffic,
  request: SdkRequest,
  record: () => Promise<void>,
): Promise<Response> {
  const hasKeys = kind === 'upload' || kind === 'reset'
  if (!hasKeys || request.wasSent) return request.outcome()
  const offer = await offerOf(request).catch(() => undefined)
  if (offer === undefined) return request.outcome()
  const note = async (answer: UploadAnswer | undefined): Promise<void> => {
    memory.passed = [...memory.passed, { token, offer, answer }].slice(-MAX_PASSED)
    // What the store does not take now is tried again with the next request.
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

/** Brings the ledger up to the uploads that passed. @throws {StoreError} */
export async function recordPassed(guarding: Guarding): Promise<void> {
  const { memory, settings, state, traffic } = guarding
  if (memory.passed.length === 0) return
  await requireOwner(guarding)
  const own = memory.passed.filter(
    ({ token }) => token === traffic.token || memory.owners.get(token)?.isOwn === true,
  )
  const now = settings.now()
  await state.update((transaction) => {
    for (const { offer, answer } of own) {
      giveUp(transaction, guarding, offer)
      chargeNewKeys(transaction, freshOf(transaction, offer.oneTimeKeys).length, now)
      recordUploading(transaction, offer.oneTimeKeys, now)
      recordFallbackKeys(transaction, offer.fallbackKeys, now)
      if (answer === undefined) continue
      settleKeys(transaction, offer.oneTimeKeys, answer, now)
      settleFallbackKeys(transaction, offer.fallbackKeys, answer, now)
    }
  })
  memory.passed = memory.passed.filter((it) => !own.includes(it))
}

async function offerOf(request: SdkRequest): Promise<Offer | undefined> {
  const body = parseObject(await request.text())
  return body && readOffer(body)
}
