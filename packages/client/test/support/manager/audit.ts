/**
 * Ground truth: the private keys in a libolm account. The pickle is decrypted and parsed, because libolm has no call
 * that lists the private halves it holds. Format (libolm, `pickle_encoding.c`, `account.cpp`): HKDF of the key with
 * "Pickle", AES-256-CBC, 8 bytes of HMAC; then version, identity pairs, a counted list of one-time keys, fallback keys.
 */
import { createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto'

export type HeldKey = { readonly publicKey: string; readonly hash: string }

export type Audit = { readonly oneTimeKeys: readonly HeldKey[]; readonly fallbackKeys: readonly HeldKey[] }

const MAC_BYTES = 8
const IDENTITY_BYTES = 32 + 64 + 32 + 32

/** Lists the private keys in a pickle. @throws when it was pickled with another key */
export function auditPickle(pickle: string, key: string): Audit {
  const raw = Buffer.from(pickle, 'base64')
  const ciphertext = raw.subarray(0, -MAC_BYTES)
  const derived = Buffer.from(hkdfSync('sha256', Buffer.from(key), Buffer.alloc(32), 'Pickle', 80))
  const mac = createHmac('sha256', derived.subarray(32, 64)).update(ciphertext).digest()
  if (!mac.subarray(0, MAC_BYTES).equals(raw.subarray(-MAC_BYTES)))
    throw new Error('not the key of this pickle')
  const decipher = createDecipheriv('aes-256-cbc', derived.subarray(0, 32), derived.subarray(64))
  return readAccount(Buffer.concat([decipher.update(ciphertext), decipher.final()]))
}

function readAccount(bytes: Buffer): Audit {
  let at = 4 + IDENTITY_BYTES
  const readKey = (): HeldKey => {
    // An ID, a flag, the public and the private half.
    const publicKey = bytes
      .subarray(at + 5, at + 37)
      .toString('base64')
      .replaceAll('=', '')
    at += 5 + 32 + 32
    return { publicKey, hash: createHash('sha256').update(publicKey).digest('base64url') }
  }
  const count = bytes.readUInt32BE(at)
  at += 4
  const oneTimeKeys = Array.from({ length: count }, readKey)
  const fallbackCount = bytes[at++] ?? 0
  const fallbackKeys = Array.from({ length: fallbackCount }, readKey)
  return { oneTimeKeys, fallbackKeys }
}
