/** Request bodies of the steps of a history. */
import { keyObject, material } from '@latchkey/testing/test-client.ts'
import { crossSigningPairs, type SigningKeyPair, signingKeyPair } from '@latchkey/testing/signing.ts'
import type { AnyJson, TestDevice } from '@latchkey/testing/test-server.ts'
import type { KeyPick } from './steps.ts'

type Name = Pick<TestDevice, 'userId' | 'deviceId'>

const identities = [signingKeyPair(), signingKeyPair(), signingKeyPair()]
/** By number: the cross-signing keys that a user may upload. */
export const crossSigning = [crossSigningPairs(), crossSigningPairs()]

export function deviceKeysOf({ userId, deviceId }: Name, identity: number): AnyJson {
  const pair = at(identities, identity)
  const keys = {
    [`curve25519:${deviceId}`]: material(`identity ${identity}`),
    [`ed25519:${deviceId}`]: pair.publicKey,
  }
  const object = { user_id: userId, device_id: deviceId, algorithms: ['m.olm.v1.curve25519-aes-sha2'], keys }
  return pair.sign(userId, object, deviceId)
}

/** @param current the device's current identity, which signs some of the keys */
export function keysOf(
  device: Name,
  picks: readonly KeyPick[],
  current: number | undefined,
  extra: Record<string, unknown> = {},
): Record<string, unknown> {
  return Object.fromEntries(
    picks.map((pick) => [`${pick.algorithm}:${pick.id}`, signed(device, pick, current, extra)]),
  )
}

function signed(
  { userId, deviceId }: Name,
  { material: number, signer }: KeyPick,
  current: number | undefined,
  extra: Record<string, unknown>,
): unknown {
  const { signatures: _invalid, ...unsigned } = keyObject(`material ${number}`, extra)
  const identity = signer === 'current' ? current : signer === 'none' ? undefined : signer
  return identity === undefined ? unsigned : at(identities, identity).sign(userId, unsigned, deviceId)
}

/** Device keys with a signature by the user's self-signing key. */
export function signedDeviceKeys(device: Name, identity: number, pairs: number): AnyJson {
  return selfSigning(pairs).sign(device.userId, deviceKeysOf(device, identity))
}

function selfSigning(pairs: number): SigningKeyPair {
  return at(crossSigning, pairs).selfSigning
}

export function at<T>(list: readonly T[], index: number): T {
  const found = list[index]
  if (found === undefined) throw new Error(`there is no number ${index}`)
  return found
}
