/**
 * Reads which one-time key an Olm pre-key message was made with. Nothing of it is authenticated: anybody can write a
 * message that names any key, so what is read here attributes and reports, and never causes a key to be withdrawn.
 *
 * Format (Olm specification, "Pre-key messages"): version byte 0x03, then protobuf fields: 0x0A the one-time key, 0x12
 * the sender's base key, 0x1A the sender's identity key, 0x22 the message.
 */
import { type JsonObject, isJsonObject } from '@latchkey/protocol'

export type PreKeyMessage = {
  /** Public keys, unpadded base64. */
  readonly oneTimeKey: string
  readonly baseKey: string
  readonly identityKey: string
}

const VERSION = 3
const ONE_TIME_KEY = 0x0a
const BASE_KEY = 0x12
const IDENTITY_KEY = 0x1a
const KEY_BYTES = 32
const VARINT_MAX_BYTES = 5

/** The keys that a message of Olm type 0 names; undefined when it is not one. */
export function parsePreKeyMessage(body: string): PreKeyMessage | undefined {
  const bytes = fromBase64(body)
  if (bytes === undefined || bytes[0] !== VERSION) return undefined
  const fields = new Map<number, Uint8Array>()
  for (let at = 1; at < bytes.length && fields.size < 3; ) {
    const tag = bytes[at++] ?? 0
    const length = readVarint(bytes, at)
    if (length === undefined) return undefined
    at = length.end
    // Wire type 2 is a length and its bytes, 0 a number alone; Olm knows no other.
    if ((tag & 7) === 0) continue
    if ((tag & 7) !== 2 || at + length.value > bytes.length) return undefined
    if (length.value === KEY_BYTES && !fields.has(tag)) fields.set(tag, bytes.subarray(at, at + length.value))
    at += length.value
  }
  const [oneTimeKey, baseKey, identityKey] = [ONE_TIME_KEY, BASE_KEY, IDENTITY_KEY].map((tag) =>
    fields.get(tag),
  )
  if (oneTimeKey === undefined || baseKey === undefined || identityKey === undefined) return undefined
  return { oneTimeKey: base64(oneTimeKey), baseKey: base64(baseKey), identityKey: base64(identityKey) }
}

/** An Olm message in an `m.room.encrypted` event. */
export type OlmEvent = {
  readonly sender: string
  /** The sender's curve25519 identity key, as the event claims. */
  readonly senderKey: string
  /** Olm ciphertexts by the recipient's curve25519 identity key. */
  readonly ciphertexts: Readonly<Record<string, { readonly type: 0 | 1; readonly body: string }>>
}

const OLM_V1 = 'm.olm.v1.curve25519-aes-sha2'

/** The Olm message of a to-device event; undefined when it is another kind of event. */
export function decodeOlmEvent(event: unknown): OlmEvent | undefined {
  if (!isJsonObject(event) || event['type'] !== 'm.room.encrypted') return undefined
  const { sender, content } = event
  if (typeof sender !== 'string' || !isJsonObject(content) || content['algorithm'] !== OLM_V1)
    return undefined
  const { sender_key: senderKey, ciphertext } = content
  if (typeof senderKey !== 'string' || !isJsonObject(ciphertext)) return undefined
  const ciphertexts = Object.entries(ciphertext).filter(
    (entry): entry is [string, JsonObject & { type: 0 | 1; body: string }] => isCiphertext(entry[1]),
  )
  return { sender, senderKey, ciphertexts: Object.fromEntries(ciphertexts) }
}

function isCiphertext(value: unknown): boolean {
  return (
    isJsonObject(value) && (value['type'] === 0 || value['type'] === 1) && typeof value['body'] === 'string'
  )
}

function readVarint(bytes: Uint8Array, start: number): { value: number; end: number } | undefined {
  let value = 0
  for (let i = 0; i < VARINT_MAX_BYTES; i++) {
    const byte = bytes[start + i]
    if (byte === undefined) return undefined
    value += (byte & 0x7f) * 2 ** (7 * i)
    if (byte < 0x80) return { value, end: start + i + 1 }
  }
  return undefined
}

function fromBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    return undefined
  }
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replaceAll('=', '')
}
