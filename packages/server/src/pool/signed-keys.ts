/**
 * When keys have to be signed (key-pool.md "Identity", `verify_signatures`): by default peers accept unsigned keys, and
 * so does Latchkey; a device that has changed its identity has to show which one a key belongs to.
 */
import {
  CanonicalJsonError,
  isJsonObject,
  signatureBy,
  signedText,
  type DeviceId,
  type UserId,
} from '@latchkey/protocol'
import { verifyEd25519 } from '../lib/ed25519.ts'
import { nextTurn } from '../lib/turns.ts'
import { invalidSignature, quoted } from '../matrix-error.ts'
import type { Identity } from './identity.ts'
import type { UploadedDeviceKeys } from './commands.ts'
import type { UploadedKey } from './key.ts'
import { type Decision, NO_CHANGES } from './port.ts'

/** Ed25519 checks per turn of the event loop: about 4 ms. */
const CHECKS_PER_TURN = 20

type Owner = { readonly userId: UserId; readonly deviceId: DeviceId }

/**
 * The Ed25519 checks of one request. They are made outside of the transaction that needs their result and in pieces,
 * because 500 of them take about 90 ms: a decision that needs an identity not checked yet asks for it, and is made
 * again.
 */
export class SignatureChecks {
  readonly #keys: readonly UploadedKey[]
  readonly #owner: Owner
  /** By ed25519 key: the name of the first key that it did not sign; undefined when it signed all. */
  readonly #unsigned = new Map<string | undefined, string | undefined>()

  constructor(keys: readonly UploadedKey[], owner: Owner) {
    this.#keys = keys
    this.#owner = owner
  }

  /** Checks all keys of the request against an identity, once; so many as fit one turn within the call. */
  async check(identity: Identity): Promise<void> {
    if (this.#unsigned.has(identity.ed25519)) return
    let unsigned: UploadedKey | undefined
    for (const [n, key] of this.#keys.entries()) {
      if (n > 0 && n % CHECKS_PER_TURN === 0) await nextTurn()
      if (isSigned(key.json, identity, this.#owner)) continue
      unsigned = key
      break
    }
    this.#unsigned.set(identity.ed25519, unsigned && quoted(`${unsigned.algorithm}:${unsigned.keyId}`))
  }

  /**
   * Demands that the identity signed every key. Returns a `verify` decision if it was not checked yet.
   *
   * @throws {MatrixError} 400 M_INVALID_SIGNATURE naming the first key that it did not sign.
   */
  require(identity: Identity): (Decision<never> & { readonly kind: 'verify' }) | undefined {
    if (this.#keys.length === 0) return undefined
    if (!this.#unsigned.has(identity.ed25519)) return { kind: 'verify', identity, changes: NO_CHANGES }
    const unsigned = this.#unsigned.get(identity.ed25519)
    if (unsigned === undefined) return undefined
    throw invalidSignature(`Key ${unsigned} is not signed by this device's current ed25519 key.`)
  }
}

/** @throws {MatrixError} 400 M_INVALID_SIGNATURE when device keys are not signed by the ed25519 key they carry. */
export function requireSignedDeviceKeys({ json, identity }: UploadedDeviceKeys, owner: Owner): void {
  if (!isSigned(json, identity, owner)) {
    throw invalidSignature('device_keys are not signed by the ed25519 key that they carry.')
  }
}

function isSigned(json: string, { ed25519 }: Identity, { userId, deviceId }: Owner): boolean {
  const value: unknown = JSON.parse(json)
  const signature = isJsonObject(value) ? signatureBy(value, userId, `ed25519:${deviceId}`) : undefined
  if (ed25519 === undefined || signature === undefined || !isJsonObject(value)) return false
  try {
    return verifyEd25519(ed25519, signature, signedText(value))
  } catch (error) {
    if (error instanceof CanonicalJsonError) return false // what has no canonical form cannot have been signed
    throw error
  }
}
