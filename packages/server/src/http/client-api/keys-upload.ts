/** POST /keys/upload (client-server API; MSC2732; outcomes: extensions.md). */
import { Type } from 'typebox'
import { requireOnePerAlgorithm } from '../../pool/fallback.ts'
import { countsOf } from '../../pool/key-pool.ts'
import { endpoint } from '../endpoint.ts'
import { asObject, decodeDeviceKeys, decodeKeys, DeviceKeys, Keys } from './decode-keys.ts'
import { outcomeMembers } from './encode-outcomes.ts'

export const keysUpload = endpoint({
  method: 'POST',
  path: '/keys/upload',
  body: Type.Object({
    device_keys: Type.Optional(DeviceKeys),
    one_time_keys: Type.Optional(Keys),
    fallback_keys: Type.Optional(Keys),
  }),
  async handle({ context, session, body }) {
    const { pools } = context.config
    const oneTimeKeys = decodeKeys('one_time_keys', body.one_time_keys, pools)
    const fallbackKeys = decodeKeys('fallback_keys', body.fallback_keys, pools)
    requireOnePerAlgorithm(fallbackKeys)
    const deviceKeys = body.device_keys && decodeDeviceKeys(asObject(body.device_keys), session)
    const result = await context.store.pools.upload({
      session,
      ...(deviceKeys && { deviceKeys }),
      oneTimeKeys,
      fallbackKeys,
      now: context.now(),
    })
    if (result.purged !== undefined) {
      const { userId, deviceId } = session
      context.log.warn({ userId, deviceId, cause: result.purged }, 'the key pools of a device were purged')
    }
    return { one_time_key_counts: countsOf(result.status), ...outcomeMembers(result) }
  },
})
