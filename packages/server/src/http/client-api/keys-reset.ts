/** POST /keys/reset (MSC4162, with the optional members of extensions.md). */
import {
  ABSENT,
  EPOCH,
  IF_GENERATION,
  IF_VERSION,
  keyName,
  REQUEST_ID,
  RESET_UNSTABLE_PATH,
  WITHDRAWN,
} from '@latchkey/protocol'
import { Type } from 'typebox'
import { badJson, missingParam } from '../../matrix-error.ts'
import { requireOnePerAlgorithm } from '../../pool/fallback.ts'
import { countsOf } from '../../pool/pool-answer.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { Withdrawal } from '../../pool/commands.ts'
import { type Endpoint, endpoint, largeBody } from '../endpoint.ts'
import { decodeKeyName, decodeKeys, Keys } from './decode-keys.ts'
import { outcomeMembers } from './encode-outcomes.ts'

const MAX_REQUEST_ID_LENGTH = 255

const reset = endpoint({
  method: 'POST',
  path: `/_matrix/client/${RESET_UNSTABLE_PATH}`,
  sessionProvedByStore: true,
  bodyBytes: largeBody,
  exactNumbers: true,
  body: Type.Object({
    all: Type.Optional(Type.Boolean()),
    /** Ignored with `all: true`, so its type is not checked. */
    key_ids: Type.Optional(Type.Unknown()),
    [IF_GENERATION]: Type.Optional(Type.Integer()),
    [IF_VERSION]: Type.Optional(Type.Integer()),
    [EPOCH]: Type.Optional(Type.String()),
    [REQUEST_ID]: Type.Optional(Type.String({ minLength: 1, maxLength: MAX_REQUEST_ID_LENGTH })),
    one_time_keys: Type.Optional(Keys),
    fallback_keys: Type.Optional(Keys),
  }),
  async handle({ context, session, body, origin }) {
    const { pools } = context.config
    const withdrawal = decodeWithdrawal(body.all, body.key_ids, pools)
    const oneTimeKeys = decodeKeys('one_time_keys', body.one_time_keys, pools)
    const fallbackKeys = decodeKeys('fallback_keys', body.fallback_keys, pools)
    requireOnePerAlgorithm(fallbackKeys)
    const ifGeneration = body[IF_GENERATION]
    const ifVersion = body[IF_VERSION]
    const ifEpoch = body[EPOCH]
    const requestId = body[REQUEST_ID]
    const result = await context.pools.reset({
      session,
      withdrawal,
      ...(ifGeneration !== undefined && { ifGeneration }),
      ...(ifVersion !== undefined && { ifVersion }),
      ...(ifEpoch !== undefined && { ifEpoch }),
      ...(requestId !== undefined && { requestId }),
      oneTimeKeys,
      fallbackKeys,
      now: context.now(),
    })
    const evicted = result.evicted.length
    if (evicted > 0) context.securityLog.note('keys_evicted', origin, { count: evicted })
    return {
      device_one_time_keys_count: countsOf(result.status),
      [WITHDRAWN]: result.withdrawn,
      [ABSENT]: result.absent,
      ...outcomeMembers(result),
    }
  },
})

/** Served at the unstable path always, at the stable one if configured. */
export function keysReset(stable: boolean): Endpoint[] {
  return stable ? [reset, { ...reset, path: '/keys/reset', versions: ['v3'] }] : [reset]
}

function decodeWithdrawal(all: boolean | undefined, keyIds: unknown, policy: PoolPolicy): Withdrawal {
  if (all === true) return { all: true }
  if (keyIds === undefined || keyIds === null) {
    throw missingParam('Expected "all": true, or "key_ids" with the keys to withdraw. Nothing was changed.')
  }
  if (!Array.isArray(keyIds)) throw badJson('key_ids must be an array of strings. Nothing was changed.')
  const names = keyIds.map((name: unknown) => {
    if (typeof name !== 'string') throw badJson('key_ids must be an array of strings. Nothing was changed.')
    const { algorithm, keyId } = decodeKeyName('key_ids', name, policy)
    return keyName(algorithm, keyId)
  })
  return { all: false, names }
}
