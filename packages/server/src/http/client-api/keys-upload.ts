/** POST /keys/upload (client-server API; MSC2732; outcomes: extensions.md). */
import type { KeyName, UploadOutcome } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import { BudgetError } from '../../pool/daily-budget.ts'
import { requireOnePerAlgorithm } from '../../pool/fallback.ts'
import { countsOf } from '../../pool/pool-answer.ts'
import type { Origin } from '../../observe/security-log.ts'
import { endpoint, largeBody } from '../endpoint.ts'
import { asObject, decodeDeviceKeys, decodeKeys, DeviceKeys, Keys } from './decode-keys.ts'
import { outcomeMembers } from './encode-outcomes.ts'

export const keysUpload = endpoint({
  method: 'POST',
  path: '/keys/upload',
  sessionProvedByStore: true,
  bodyBytes: largeBody,
  exactNumbers: true,
  body: Type.Object({
    device_keys: Type.Optional(DeviceKeys),
    one_time_keys: Type.Optional(Keys),
    fallback_keys: Type.Optional(Keys),
  }),
  async handle({ context, session, body, origin }) {
    const { pools } = context.config
    const oneTimeKeys = decodeKeys('one_time_keys', body.one_time_keys, pools)
    const fallbackKeys = decodeKeys('fallback_keys', body.fallback_keys, pools)
    requireOnePerAlgorithm(fallbackKeys)
    const deviceKeys = body.device_keys && decodeDeviceKeys(asObject(body.device_keys), session)
    const now = context.now()
    const command = { session, ...(deviceKeys && { deviceKeys }), oneTimeKeys, fallbackKeys, now }
    const result = await context.pools.upload(command).catch((error: unknown) => {
      const isHeal = error instanceof BudgetError && error.budget === 'heals'
      if (isHeal) context.securityLog.note('heals_exceeded', origin, {})
      throw error
    })
    if (result.purged !== undefined) {
      context.log.warn({ ...origin, cause: result.purged }, 'the key pools of a device were purged')
    }
    const evicted = result.evicted.length
    if (evicted > 0) context.securityLog.note('keys_evicted', origin, { count: evicted })
    reportReusedIds(context, origin, result.outcomes)
    return { one_time_key_counts: countsOf(result.status), ...outcomeMembers(result) }
  },
})

/** Maximum key names in one log line; `count` has the total. */
const MAX_LOGGED_NAMES = 10

/** New material under an issued ID: the client's store was rolled back, and sessions in flight may be lost. */
function reportReusedIds(
  { log }: Context,
  origin: Origin,
  outcomes: ReadonlyMap<KeyName, UploadOutcome>,
): void {
  const reused = [...outcomes].filter(([, outcome]) => outcome === 'id_reused').map(([name]) => name)
  if (reused.length === 0) return
  const keys = reused.slice(0, MAX_LOGGED_NAMES)
  log.warn(
    { ...origin, count: reused.length, keys },
    'a device uploaded new keys under already issued IDs: its store was rolled back',
  )
}
