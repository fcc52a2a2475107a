/** Follows a reset that the app sends itself. */
import { isJsonObject, type KeyName } from '@latchkey/protocol'
import { ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo, recordUploading } from '../ledger/ledger.ts'
import { decodeReset, parseObject } from '../server/answers.ts'
import { learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import { requireOwner, serverLevel } from './guarded-device.ts'
import type { GuardContext } from './context.ts'
import { withStoreLock } from './store-lock.ts'
import { decodePayload, recordFallbackKeys, settleFallbackKeys, settleKeys } from './upload-payload.ts'
import type { SdkRequest } from './sdk-request.ts'

export async function guardReset(context: GuardContext, request: SdkRequest): Promise<Response> {
  const { memory, settings, state } = context
  const body = parseObject(await request.text())
  if (body === undefined) return request.send()
  const [payload] = await Promise.all([decodePayload(body), serverLevel(context), requireOwner(context)])
  return withStoreLock(context, async () => {
    const now = settings.now()
    await state.update((transaction) => {
      recordUploading(transaction, payload.oneTimeKeys, now)
      recordFallbackKeys(transaction, payload.fallbackKeys, now)
    })
    const response = await request.send()
    const answered = response.status === 200 ? parseObject(await response.clone().text()) : undefined
    if (answered === undefined) return response
    const answer = decodeReset(answered)
    await state.update((transaction) => {
      const names = answer.withdrawn ?? namesIn(body)
      const keys = new Set(payload.oneTimeKeys.map(({ hash }) => hash))
      for (const [id, record] of transaction.all(ONE_TIME_KEYS)) {
        if (record.state !== 'available' || keys.has(record.hash)) continue
        if (names === undefined || names.includes(id as KeyName)) {
          moveTo(transaction, ONE_TIME_KEYS, id, 'withdrawn', now, { detail: 'reset by the app' })
        }
      }
      settleKeys(transaction, payload.oneTimeKeys, answer, now)
      settleFallbackKeys(transaction, payload.fallbackKeys, answer, now)
      const view = transaction.get(SERVER_VIEW, SERVER_VIEW_ID)
      const learned = { ...answer, begunAt: transaction.generation, isChange: true }
      transaction.put(SERVER_VIEW, SERVER_VIEW_ID, learn(view, learned, transaction.generation))
    })
    memory.compared = undefined
    return response
  })
}

/** The names listed in a request; undefined when it resets all. */
function namesIn(body: { readonly [key: string]: unknown }): readonly KeyName[] | undefined {
  if (body['all'] === true) return undefined
  const { key_ids: names } = body
  return isJsonObject(names) || !Array.isArray(names) ? [] : (names as KeyName[])
}
