/** Fills a database before a server opens it: writes accounts, devices and keys directly into the store. */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import { hash, randomBytes } from 'node:crypto'
import type { Algorithm, DeviceId, KeyId, KeyMaterial, UserId } from '@latchkey/protocol'
import { DEFAULT_CONFIG, postgresOptions, storeOptions } from '../../packages/server/src/config/config.ts'
import { DEFAULT_POOL_POLICY } from '../../packages/server/src/pool/policy.ts'
import type { UploadedKey } from '../../packages/server/src/pool/key.ts'
import type { TokenHash } from '../../packages/server/src/session.ts'
import type { Store } from '../../packages/server/src/store.ts'
import { openPostgresStore } from '../../packages/server/src/store/postgres/index.ts'
import { openSqliteStore } from '../../packages/server/src/store/sqlite/index.ts'

export type FilledDevice = { readonly userId: string; readonly deviceId: string; readonly token: string }

const ALGORITHM = 'signed_curve25519' as Algorithm
const SERVER_NAME = 'bench.example'

/** `devices` devices, each of its own user, with `keysEach` one-time keys and optionally a fallback key. */
export type Filling = {
  readonly devices: number
  readonly keysEach: number
  readonly fallback?: boolean
}

const POOLS = {
  ...DEFAULT_POOL_POLICY,
  keysPerPool: Number.MAX_SAFE_INTEGER,
  keysPerDeviceAndDay: 0,
  keysPerUserAndDay: 0,
  keyBytesPerUserAndDay: 0,
}

/** How a checkout fills a database: this module's functions. */
export type Fillers = { readonly fill: typeof fill; readonly fillPostgres: typeof fillPostgres }

/** Fills a data directory of the embedded store. */
export async function fill({
  dataDir,
  ...filling
}: Filling & { readonly dataDir: string }): Promise<FilledDevice[]> {
  const store = await openSqliteStore({
    ...storeOptions({ ...DEFAULT_CONFIG, dataDir, pools: POOLS }),
    onFence: () => {},
    now: Date.now,
  })
  return fillStore(store, filling)
}

/** Fills an empty PostgreSQL database. */
export async function fillPostgres({
  database,
  ...filling
}: Filling & { readonly database: string }): Promise<FilledDevice[]> {
  const store = await openPostgresStore({
    ...postgresOptions({ ...DEFAULT_CONFIG, database, pools: POOLS }),
    now: Date.now,
  })
  return fillStore(store, filling)
}

async function fillStore(store: Store, options: Filling): Promise<FilledDevice[]> {
  await store.claimServerName(SERVER_NAME)
  const pools = keyPools(store, POOLS)
  const made: FilledDevice[] = []
  const now = Date.now()
  const makeOne = async (n: number): Promise<void> => {
    const userId = `@user${n}:${SERVER_NAME}` as UserId
    const deviceId = `DEVICE${String(n).padStart(6, '0')}` as DeviceId
    const account = await store.accounts.create({ userId, passwordHash: '', now })
    const token = `bench-${n}-${randomBytes(12).toString('base64url')}`
    const tokenHash = hash('sha256', token, 'base64url') as TokenHash
    const session = await store.accounts.openSession({ account, deviceId, tokenHash, now })
    for (let done = 0; done < options.keysEach; done += 500) {
      const count = Math.min(500, options.keysEach - done)
      const oneTimeKeys = Array.from({ length: count }, (_, i) => makeKey(userId, deviceId, done + i))
      const fallbackKeys = options.fallback === true && done === 0 ? [makeKey(userId, deviceId, -1)] : []
      await pools.upload({ session, oneTimeKeys, fallbackKeys, now })
    }
    made.push({ userId, deviceId, token })
  }
  for (let n = 0; n < options.devices; n += 100) {
    const group = Array.from({ length: Math.min(100, options.devices - n) }, (_, i) => makeOne(n + i))
    await Promise.all(group)
  }
  await store.close()
  return made
}

/** A key of the size that vodozemac's clients upload. */
export function makeKey(userId: string, deviceId: string, n: number): UploadedKey {
  const key = randomBytes(32).toString('base64').slice(0, 43)
  const signature = randomBytes(64).toString('base64').slice(0, 86)
  const json = JSON.stringify({ key, signatures: { [userId]: { [`ed25519:${deviceId}`]: signature } } })
  const id = Buffer.alloc(8)
  id.writeBigInt64BE(BigInt(n))
  return {
    algorithm: ALGORITHM,
    keyId: id.toString('base64').slice(0, 11) as KeyId,
    material: key as KeyMaterial,
    json,
  }
}
