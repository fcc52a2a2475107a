/** Olm pre-key messages, as far as they can be read without keys: their writer can name any key. */
import { publicKey } from './model-sdk.ts'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'

export type PreKey = { readonly oneTimeKey: string; readonly ownKey: string; readonly baseKey?: string }

/** The content of an `m.room.encrypted` to-device event that names a one-time key. */
export function preKeyContent({ oneTimeKey, ownKey, baseKey = publicKey() }: PreKey): AnyJson {
  const identityKey = publicKey()
  const field = (tag: number, key: string): Buffer =>
    Buffer.concat([Buffer.from([tag, 32]), Buffer.from(key, 'base64')])
  const body = Buffer.concat([
    Buffer.from([3]),
    field(0x0a, oneTimeKey),
    field(0x12, baseKey),
    field(0x1a, identityKey),
    Buffer.from([0x22, 3, 1, 2, 3]),
  ])
  return {
    algorithm: 'm.olm.v1.curve25519-aes-sha2',
    sender_key: identityKey,
    ciphertext: { [ownKey]: { type: 0, body: body.toString('base64').replaceAll('=', '') } },
  }
}
