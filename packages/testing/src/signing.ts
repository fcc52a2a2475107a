/** Ed25519 key pairs that sign Matrix JSON, for tests that act as clients. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { signedText } from '@latchkey/protocol'
import type { AnyJson, TestDevice } from './test-server.ts'

export type SigningKeyPair = {
  /** Unpadded base64. */
  readonly publicKey: string
  /** The object with a signature by `userId` and key `name` (default: the public key). */
  sign(userId: string, object: AnyJson, name?: string): AnyJson
}

export function signingKeyPair(): SigningKeyPair {
  const { publicKey: key, privateKey } = generateKeyPairSync('ed25519')
  const publicKey = Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url')
    .toString('base64')
    .replaceAll('=', '')
  return {
    publicKey,
    sign(userId, object, name = publicKey) {
      const signature = sign(null, Buffer.from(signedText(object)), privateKey).toString('base64')
      const own = { ...object.signatures?.[userId], [`ed25519:${name}`]: signature.replaceAll('=', '') }
      return { ...object, signatures: { ...object.signatures, [userId]: own } }
    },
  }
}

/** Device keys as a client uploads them, signed by the device. */
export function deviceKeysOf({ userId, deviceId }: TestDevice, identity: SigningKeyPair): AnyJson {
  const keys = {
    [`curve25519:${deviceId}`]: signingKeyPair().publicKey,
    [`ed25519:${deviceId}`]: identity.publicKey,
  }
  const object = { user_id: userId, device_id: deviceId, algorithms: ['m.olm.v1.curve25519-aes-sha2'], keys }
  return identity.sign(userId, object, deviceId)
}

export type CrossSigningPairs = {
  readonly master: SigningKeyPair
  readonly selfSigning: SigningKeyPair
  readonly userSigning: SigningKeyPair
}

export function crossSigningPairs(): CrossSigningPairs {
  return { master: signingKeyPair(), selfSigning: signingKeyPair(), userSigning: signingKeyPair() }
}

/** A cross-signing key object, signed by `signer` if given. */
export function crossSigningKey(
  userId: string,
  usage: string,
  pair: SigningKeyPair,
  signer?: SigningKeyPair,
): AnyJson {
  const { publicKey } = pair
  const object = { user_id: userId, usage: [usage], keys: { [`ed25519:${publicKey}`]: publicKey } }
  return signer === undefined ? object : signer.sign(userId, object)
}

/** The body of a `/keys/device_signing/upload` with all three keys. */
export function crossSigningBody(userId: string, pairs: CrossSigningPairs): AnyJson {
  return {
    master_key: crossSigningKey(userId, 'master', pairs.master),
    self_signing_key: crossSigningKey(userId, 'self_signing', pairs.selfSigning, pairs.master),
    user_signing_key: crossSigningKey(userId, 'user_signing', pairs.userSigning, pairs.master),
  }
}
