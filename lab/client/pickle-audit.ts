/**
 * Reads the private keys in the pickle of a libolm account, which libolm's API does not expose.
 * Format (libolm, `src/pickle_encoding.c`, `src/account.cpp`): HKDF-SHA-256 of the passphrase with the info "Pickle"
 * gives AES key, MAC key and IV; AES-256-CBC; 8 bytes of HMAC-SHA-256; inside, big-endian numbers and raw keys.
 */
import { createDecipheriv, createHash, createHmac, hkdfSync } from 'node:crypto'

export type HeldKey = {
  /** libolm's number of the key. */
  readonly id: number
  readonly isPublished: boolean
  /** Unpadded base64. */
  readonly publicKey: string
}

export type HeldKeys = { readonly oneTimeKeys: readonly HeldKey[]; readonly fallbackKeys: readonly HeldKey[] }

const MAC_BYTES = 8
const KEY_BYTES = 32
/** Version of the format above, which added fallback keys. */
const PICKLE_VERSION = 4

/** @throws {Error} when the passphrase is wrong, or the pickle is damaged or has another format. */
export function auditPickle(pickle: string, passphrase: string): HeldKeys {
  const take = reader(decrypt(Buffer.from(pickle, 'base64'), passphrase))
  const number = (): number => take(4).readUInt32BE()
  const version = number()
  if (version !== PICKLE_VERSION) throw new Error(`pickle of version ${version}, expected ${PICKLE_VERSION}`)
  // Skips the identity: ed25519 (32 public, 64 private bytes) and curve25519 (32 and 32).
  take(KEY_BYTES + 2 * KEY_BYTES + KEY_BYTES + KEY_BYTES)
  const readKey = (): HeldKey => {
    const id = number()
    const isPublished = take(1)[0] === 1
    const publicKey = take(KEY_BYTES).toString('base64').replaceAll('=', '')
    take(KEY_BYTES)
    return { id, isPublished, publicKey }
  }
  const oneTimeKeys = Array.from({ length: number() }, readKey)
  const fallbackKeys = Array.from({ length: take(1)[0] ?? 0 }, readKey)
  return { oneTimeKeys, fallbackKeys }
}

/** Public halves of all one-time and fallback keys. */
export function heldPublicKeys({ oneTimeKeys, fallbackKeys }: HeldKeys): Set<string> {
  return new Set([...oneTimeKeys, ...fallbackKeys].map(({ publicKey }) => publicKey))
}

/** A public key as the server's pool names it: base64url SHA-256 of its unpadded base64. */
export function poolHash(publicKey: string): string {
  return createHash('sha256').update(publicKey).digest('base64url')
}

function decrypt(pickle: Buffer, passphrase: string): Buffer {
  const derived = Buffer.from(hkdfSync('sha256', passphrase, Buffer.alloc(KEY_BYTES), 'Pickle', 80))
  const [aesKey, macKey, iv] = [derived.subarray(0, 32), derived.subarray(32, 64), derived.subarray(64)]
  const ciphertext = pickle.subarray(0, -MAC_BYTES)
  const mac = createHmac('sha256', macKey).update(ciphertext).digest().subarray(0, MAC_BYTES)
  if (!mac.equals(pickle.subarray(-MAC_BYTES))) throw new Error('wrong passphrase or damaged pickle')
  const decipher = createDecipheriv('aes-256-cbc', aesKey, iv)
  return Buffer.concat([decipher.update(ciphertext), decipher.final()])
}

function reader(bytes: Buffer): (length: number) => Buffer {
  let at = 0
  return (length) => {
    if (at + length > bytes.length) throw new Error('the pickle ends too early')
    return bytes.subarray(at, (at += length))
  }
}
