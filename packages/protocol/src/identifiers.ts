/**
 * Matrix identifiers as branded types, with the parsers that make them.
 * Source: Matrix specification, appendices, "Identifier grammar"; key names: client-server API, "Key algorithms".
 */

declare const brand: unique symbol
type Branded<Name extends string> = string & { readonly [brand]: Name }

/** `@localpart:server.name`, at most 255 bytes. */
export type UserId = Branded<'UserId'>
/** An opaque device ID, at most 255 bytes. */
export type DeviceId = Branded<'DeviceId'>
/** A key algorithm, `signed_curve25519` for instance. */
export type Algorithm = Branded<'Algorithm'>
/** The part of a key name after `algorithm:`. */
export type KeyId = Branded<'KeyId'>
/** A full key name: `algorithm:key_id`. */
export type KeyName = Branded<'KeyName'>

/** The algorithm whose count is in every answer, even if 0. */
export const SIGNED_CURVE25519 = 'signed_curve25519' as Algorithm

export const MAX_USER_ID_BYTES = 255
export const MAX_DEVICE_ID_BYTES = 255
export const MAX_ALGORITHM_BYTES = 255

/** Splits a user ID; undefined when invalid. Historical localparts (any character except `:`) are accepted. */
export function parseUserId(
  text: string,
): { userId: UserId; localpart: string; serverName: string } | undefined {
  const colon = text.indexOf(':')
  if (text[0] !== '@' || colon < 2 || colon === text.length - 1 || utf8Length(text) > MAX_USER_ID_BYTES)
    return undefined
  return { userId: text as UserId, localpart: text.slice(1, colon), serverName: text.slice(colon + 1) }
}

/** Validates a device ID: 1 to 255 bytes; undefined otherwise. */
export function parseDeviceId(text: string): DeviceId | undefined {
  return text !== '' && utf8Length(text) <= MAX_DEVICE_ID_BYTES ? (text as DeviceId) : undefined
}

/** Splits `algorithm:key_id`: exactly two non-empty parts, as other servers require; undefined otherwise. */
export function parseKeyName(text: string): { algorithm: Algorithm; keyId: KeyId } | undefined {
  const colon = text.indexOf(':')
  if (colon < 1 || colon === text.length - 1 || text.includes(':', colon + 1)) return undefined
  return { algorithm: text.slice(0, colon) as Algorithm, keyId: text.slice(colon + 1) as KeyId }
}

/** Builds a full key name. */
export function keyName(algorithm: Algorithm, keyId: KeyId): KeyName {
  return `${algorithm}:${keyId}` as KeyName
}

/** The length of a string in UTF-8 bytes. A lone surrogate counts three, like its replacement character. */
export function utf8Length(text: string): number {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) continue
    bytes += unit < 0x800 ? 1 : 2
    // A surrogate pair is two units and four bytes: the first unit added two bytes, so the second is skipped.
    if (unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) i++
  }
  return bytes
}
