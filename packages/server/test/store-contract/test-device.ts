/** Devices, identities and keys for the contract suite: real signatures, created once. */
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import {
  type Algorithm,
  canonicalJson,
  type DeviceId,
  type KeyId,
  type KeyMaterial,
  type UserId,
} from '@latchkey/protocol'
import type { Claimer, PoolStatus, UploadedDeviceKeys } from '../../src/pool/commands.ts'
import type { UploadedKey } from '../../src/pool/key.ts'
import type { Session, TokenHash } from '../../src/session.ts'
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'

export const USER = '@alice:test.example' as UserId
export const DEVICE = 'ALICEDEV' as DeviceId

/** Logs a device in, as the domain does; creates the account if there is none. */
export async function login(
  store: Pick<PoolHistoryStore, 'accounts'>,
  now: number,
  userId = USER,
  deviceId = DEVICE,
): Promise<Session> {
  const account =
    (await store.accounts.find(userId)) ?? (await store.accounts.create({ userId, passwordHash: '', now }))
  const tokenHash = randomBytes(16).toString('hex') as TokenHash
  return store.accounts.openSession({ account, deviceId, tokenHash, now })
}

/** The pools as the device would receive them now. Acknowledges nothing. */
export async function poolStatus(
  store: Pick<PoolHistoryStore, 'sync'>,
  session: Session,
): Promise<PoolStatus> {
  const query = {
    confirms: false,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 1, syncPageBytes: 1e9 },
    mayWait: true,
  }
  return (await store.sync.read(session, query)).pools
}

/** A claimer of the same server. */
export function claimer(localpart: string): Claimer {
  const id = `@${localpart}:test.example`
  return { by: 'user', id, name: `${id} DEV` }
}

type Identity = {
  readonly name: string
  readonly privateKey: KeyObject
  readonly deviceKeys: UploadedDeviceKeys
}

function makeIdentity(name: string): Identity {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const ed25519 = base64(raw) as KeyMaterial
  const curve25519 = base64(createHash('sha256').update(raw).digest()) as KeyMaterial
  const json = canonicalJson({
    user_id: USER,
    device_id: DEVICE,
    algorithms: ['m.olm.v1.curve25519-aes-sha2'],
    keys: { [`ed25519:${DEVICE}`]: ed25519, [`curve25519:${DEVICE}`]: curve25519 },
    signatures: {},
  })
  return { name, privateKey, deviceKeys: { json, identity: { ed25519, curve25519 } } }
}

const identities = ['first', 'second', 'third'].map(makeIdentity)

export function identity(index: number): Identity {
  const found = identities[index]
  if (found === undefined) throw new Error(`no identity ${index}`)
  return found
}

const made = new Map<string, UploadedKey>()

/** A key with material number `material`, signed by an identity or unsigned. The same arguments give the same key. */
export function makeKey(algorithm: string, id: string, material: number, signer?: Identity): UploadedKey {
  const name = `${algorithm} ${id} ${material} ${signer?.name}`
  const known = made.get(name)
  if (known !== undefined) return known
  const key = materialText(material)
  const json = JSON.stringify({ key, signatures: signer === undefined ? {} : signaturesOf(key, signer) })
  const uploaded = { algorithm: algorithm as Algorithm, keyId: id as KeyId, material: key, json }
  made.set(name, uploaded)
  return uploaded
}

function signaturesOf(key: KeyMaterial, { privateKey }: Identity): object {
  const signature = base64(sign(null, Buffer.from(canonicalJson({ key })), privateKey))
  return { [USER]: { [`ed25519:${DEVICE}`]: signature } }
}

function materialText(number: number): KeyMaterial {
  return base64(createHash('sha256').update(`material ${number}`).digest()) as KeyMaterial
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64').replaceAll('=', '')
}
