/**
 * Decodes uploaded keys: checks the structure that other homeservers require of key objects, and the size limits. It
 * accepts unsigned keys and unknown algorithms, which old clients and test suites of other homeservers upload.
 */
import {
  type Algorithm,
  canonicalJson,
  CanonicalJsonError,
  isJsonObject,
  type Json,
  type JsonObject,
  type KeyId,
  type KeyJson,
  MAX_ALGORITHM_BYTES,
  materialOf,
  parseKeyName,
  utf8Length,
} from '@latchkey/protocol'
import { Type } from 'typebox'
import { badJson, invalidParam, quoted, tooLarge } from '../../matrix-error.ts'
import { identityOf } from '../../pool/identity.ts'
import { keyObjectLimit } from '../../pool/limits.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { UploadedDeviceKeys } from '../../pool/commands.ts'
import type { UploadedKey } from '../../pool/key.ts'
import type { Session } from '../../session.ts'

/**
 * `one_time_keys` and `fallback_keys`: name -> string or object with a `key`. decodeKeys checks the values, because a
 * schema error for a union can only say that no branch matches. Null is treated as absent, as on other homeservers.
 */
export const Keys = Type.Union([Type.Object({}), Type.Null()])

const StringMap = Type.Object({}, { additionalProperties: Type.String() })

export const DeviceKeys = Type.Object({
  user_id: Type.String(),
  device_id: Type.String(),
  algorithms: Type.Array(Type.String()),
  keys: StringMap,
  signatures: Type.Object({}, { additionalProperties: StringMap }),
})

/** @throws {MatrixError} 400 for malformed names and keys, 413 for keys over the policy's limits. */
export function decodeKeys(
  member: string,
  keys: object | null | undefined,
  policy: PoolPolicy,
): UploadedKey[] {
  const entries = Object.entries((keys ?? {}) as Record<string, Json>)
  return entries.map(([name, value]) => {
    const parsed = decodeKeyName(member, name, policy)
    const what = `${member}: the key ${quoted(name)}`
    const key = decodeKey(what, value)
    const json = JSON.stringify(key)
    const limit = keyObjectLimit(parsed.algorithm, policy)
    if (utf8Length(json) > limit) throw tooLarge(`${what} is larger than ${limit} bytes.`)
    return { ...parsed, material: materialOf(key), json }
  })
}

function decodeKey(what: string, value: Json): KeyJson {
  if (typeof value !== 'string' && !isJsonObject(value)) {
    throw badJson(`${what} is ${typeName(value)}; expected a string, or an object with a "key".`)
  }
  const { key, signatures }: Readonly<Record<string, Json>> =
    typeof value === 'string' ? { key: value } : value
  if (key === undefined) throw badJson(`${what} lacks the member "key".`)
  if (typeof key !== 'string') throw badJson(`${what} has ${typeName(key)} as its "key"; expected a string.`)
  if (key === '') throw badJson(`${what} is empty; expected a public key.`)
  if (signatures !== undefined) requireSignatures(what, signatures)
  requireCanonicalNumbers(what, value)
  return value as KeyJson
}

/** Signatures are `{ user ID: { key ID: signature } }` (appendices, "Signing JSON"), also in keys that need none. */
function requireSignatures(what: string, signatures: Json): void {
  const expected = 'expected an object of user IDs, each with an object of key IDs and signatures'
  if (!isJsonObject(signatures)) {
    throw badJson(`${what} has ${typeName(signatures)} as its "signatures"; ${expected}.`)
  }
  for (const [user, own] of Object.entries(signatures)) {
    if (!isJsonObject(own)) {
      throw badJson(`${what} has ${typeName(own)} as its signatures by ${quoted(user)}; ${expected}.`)
    }
    for (const [name, signature] of Object.entries(own)) {
      if (typeof signature === 'string') continue
      throw badJson(
        `${what} has ${typeName(signature)} as its signature ${quoted(name)} by ${quoted(user)}; expected a string.`,
      )
    }
  }
}

function typeName(value: Json): string {
  if (value === null) return 'null'
  if (typeof value === 'object') return Array.isArray(value) ? 'an array' : 'an object'
  return `a ${typeof value}`
}

/**
 * Signed JSON must be returned unchanged, but some numbers would not be: 12345678901234567890 is rounded, 1.0 becomes
 * 1. Canonical JSON excludes them (Matrix specification, appendices). Infinity: see decode-json.ts.
 */
function requireCanonicalNumbers(what: string, value: Json): void {
  if (typeof value === 'number' && (!Number.isSafeInteger(value) || Object.is(value, -0))) {
    throw badJson(
      `${what} has a number that canonical JSON does not allow; expected integers within +-(2^53 - 1), written without fraction, exponent or negative zero.`,
    )
  }
  if (typeof value !== 'object' || value === null) return
  for (const member of Object.values(value)) requireCanonicalNumbers(what, member)
}

/** @throws {MatrixError} 400 if it is not `algorithm:key_id`, or longer than the policy allows. */
export function decodeKeyName(
  member: string,
  name: string,
  policy: PoolPolicy,
): { algorithm: Algorithm; keyId: KeyId } {
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
  return parsed
}

/** Device keys take a few hundred bytes, and a query may return those of a thousand devices. */
const MAX_DEVICE_KEYS_BYTES = 8192

/** @throws {MatrixError} 400 if they are of another user or device, or not valid signed JSON; 413 if too large. */
export function decodeDeviceKeys(deviceKeys: JsonObject, session: Session): UploadedDeviceKeys {
  for (const [member, own] of [
    ['user_id', session.userId],
    ['device_id', session.deviceId],
  ] as const) {
    const found = deviceKeys[member]
    if (found !== own) {
      throw badJson(
        `device_keys.${member} is ${quoted(typeof found === 'string' ? found : JSON.stringify(found))}; expected the caller's own ${quoted(own)}.`,
      )
    }
  }
  requireCanonicalNumbers('device_keys', deviceKeys)
  try {
    const json = canonicalJson(deviceKeys)
    if (utf8Length(json) > MAX_DEVICE_KEYS_BYTES) {
      throw tooLarge(`device_keys are larger than ${MAX_DEVICE_KEYS_BYTES} bytes.`)
    }
    return { json, identity: identityOf(deviceKeys, session.deviceId) }
  } catch (error) {
    if (error instanceof CanonicalJsonError)
      throw badJson(`device_keys are not valid signed JSON: ${error.message}.`)
    throw error
  }
}

/** Narrows a member of a validated body. */
export function asObject(value: unknown): JsonObject {
  if (!isJsonObject(value)) throw badJson('expected an object')
  return value
}
