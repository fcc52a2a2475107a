/**
 * From the wire to UploadedKey: the structure that every peer demands of key objects, and the size limits. Contents
 * are not judged here: peers' tests and old clients upload unsigned keys and invented algorithms.
 */
import {
  canonicalJson,
  CanonicalJsonError,
  isJsonObject,
  type JsonObject,
  type KeyJson,
  MAX_ALGORITHM_BYTES,
  materialOf,
  parseKeyName,
  utf8Length,
} from '@latchkey/protocol'
import { Type } from 'typebox'
import { badJson, invalidParam, quoted, tooLarge } from '../../matrix-error.ts'
import { identityOf } from '../../pool/identity.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { UploadedDeviceKeys, UploadedKey } from '../../pool/port.ts'
import type { Session } from '../../session.ts'

const KeyMap = Type.Object(
  {},
  {
    additionalProperties: Type.Union([
      Type.String(),
      Type.Object({ key: Type.String(), signatures: Type.Optional(Type.Object({})) }),
    ]),
  },
)

/** `one_time_keys` and `fallback_keys`: name -> string or object with a `key`. Null counts as absent, as peers have it. */
export const Keys = Type.Union([KeyMap, Type.Null()])

const StringMap = Type.Object({}, { additionalProperties: Type.String() })

export const DeviceKeys = Type.Object({
  user_id: Type.String(),
  device_id: Type.String(),
  algorithms: Type.Array(Type.String()),
  keys: StringMap,
  signatures: Type.Object({}, { additionalProperties: StringMap }),
})

/** @throws {MatrixError} 400 for malformed names and sizes over the policy's limits. */
export function decodeKeys(
  member: string,
  keys: object | null | undefined,
  policy: PoolPolicy,
): UploadedKey[] {
  const entries = Object.entries((keys ?? {}) as Record<string, KeyJson>)
  if (entries.length > policy.keysPerRequest) {
    throw invalidParam(
      `${member} has ${entries.length} keys; at most ${policy.keysPerRequest} are accepted at once.`,
    )
  }
  return entries.map(([name, value]) => {
    const parsed = parseKeyName(name)
    if (parsed === undefined) {
      throw badJson(
        `${member} has a key named ${quoted(name)}; expected "algorithm:key_id", exactly two parts.`,
      )
    }
    if (utf8Length(parsed.keyId) > policy.keyIdBytes || utf8Length(parsed.algorithm) > MAX_ALGORITHM_BYTES) {
      throw invalidParam(
        `${member} has a key with a name longer than ${policy.keyIdBytes} bytes: ${quoted(name)}.`,
      )
    }
    const json = JSON.stringify(value)
    if (utf8Length(json) > policy.keyObjectBytes) {
      throw tooLarge(`${member}: the key ${quoted(name)} is larger than ${policy.keyObjectBytes} bytes.`)
    }
    return { ...parsed, material: materialOf(value), json }
  })
}

/** Device keys are a few hundred bytes; 64 KiB leaves room for algorithms to come. */
const MAX_DEVICE_KEYS_BYTES = 65_536

/** @throws {MatrixError} 400 when they are somebody else's, or cannot be signed JSON. */
export function decodeDeviceKeys(deviceKeys: JsonObject, session: Session): UploadedDeviceKeys {
  for (const [member, own] of [
    ['user_id', session.userId],
    ['device_id', session.deviceId],
  ] as const) {
    const found = deviceKeys[member]
    if (found !== own) {
      throw badJson(
        `device_keys.${member} is ${quoted(typeof found === 'string' ? found : JSON.stringify(found))}; expected the caller's own, ${quoted(own)}.`,
      )
    }
  }
  try {
    const json = canonicalJson(deviceKeys)
    if (utf8Length(json) > MAX_DEVICE_KEYS_BYTES) {
      throw tooLarge(`device_keys are larger than ${MAX_DEVICE_KEYS_BYTES} bytes.`)
    }
    return { json, identity: identityOf(deviceKeys, session.deviceId) }
  } catch (error) {
    if (error instanceof CanonicalJsonError)
      throw badJson(`device_keys cannot be signed JSON: ${error.message}.`)
    throw error
  }
}

/** Narrows a validated body's member. */
export function asObject(value: unknown): JsonObject {
  if (!isJsonObject(value)) throw badJson('expected an object')
  return value
}
