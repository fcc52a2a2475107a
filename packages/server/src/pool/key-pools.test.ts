/** The frame of a decision: Ed25519 checks and the rate limit of resets. The store is in memory. */
import { MemoryPoolStore } from '@latchkey/testing/memory-pool-store.ts'
import { key, keys, NOW } from '@latchkey/testing/pool-facts.ts'
import { signingKeyPair } from '@latchkey/testing/signing.ts'
import type { DeviceId, KeyMaterial, UserId } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TokenBuckets } from '../lib/token-bucket.ts'
import { unavailable } from '../matrix-error.ts'
import type { Session, TokenHash } from '../session.ts'
import type { ResetCommand, UploadCommand, UploadedDeviceKeys } from './commands.ts'
import { materialHash, type HashedKey } from './key.ts'
import { KeyPools } from './key-pools.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from './policy.ts'
import type { Decide, Decision, WantedFacts } from './port.ts'

const USER = '@alice:test.example' as UserId
const DEVICE = 'ALICEDEV' as DeviceId
const SIGNING_POLICY = { ...DEFAULT_POOL_POLICY, verifySignatures: true }

/** Counts the transactions. */
class CountingStore extends MemoryPoolStore {
  transactions = 0
  /** Thrown in place of the next transaction. */
  fault: Error | undefined
  /** Another request of the device that is faster. */
  overtakenBy: (() => Promise<unknown>) | undefined

  override async change<Answer>(
    session: Session,
    wanted: WantedFacts,
    decide: Decide<Answer>,
  ): Promise<Decision<Answer>> {
    this.transactions++
    if (this.fault !== undefined) throw this.fault
    const { overtakenBy } = this
    this.overtakenBy = undefined
    await overtakenBy?.()
    this.overtakenBy = overtakenBy
    return super.change(session, wanted, decide)
  }
}

type Opened = {
  readonly store: CountingStore
  readonly pools: KeyPools
  readonly session: Session
  readonly buckets: TokenBuckets
}

/** Two resets at once, then one a minute. */
function open(policy: PoolPolicy = DEFAULT_POOL_POLICY): Opened {
  const store = new CountingStore(policy)
  const buckets = new TokenBuckets({ burst: 2, perSecond: 1 / 60 })
  const pools = new KeyPools(store, { policy, resetsPerDevice: buckets })
  const account = store.addUser(USER)
  const session = store.openSession({ account, deviceId: DEVICE, tokenHash: 't' as TokenHash, now: NOW })
  return { store, pools, session, buckets }
}

function resetOf(session: Session, rest: Partial<ResetCommand> = {}): ResetCommand {
  return { session, withdrawal: { all: true }, oneTimeKeys: [], fallbackKeys: [], now: NOW, ...rest }
}

/** How many resets are refused, of three. */
async function refusedOf3(pools: KeyPools, session: Session): Promise<number> {
  let refused = 0
  for (let n = 0; n < 3; n++)
    await pools.reset(resetOf(session)).catch((error: unknown) => {
      assert.deepEqual(Object(error).extra, { retry_after_ms: 2_000 })
      refused++
    })
  return refused
}

const CHARGE_ROWS: readonly (readonly [string, (opened: Opened) => Promise<unknown>, number])[] = [
  ['no reset before', async () => {}, 1],
  ['a reset', ({ pools, session }) => pools.reset(resetOf(session)), 2],
  [
    'a reset that was refused',
    ({ pools, session }) => assert.rejects(pools.reset(resetOf(session, { ifVersion: 9 })), { status: 409 }),
    2,
  ],
  [
    'a reset and its replay',
    async ({ pools, session }) => {
      const command = resetOf(session, { requestId: 'one' })
      assert.deepEqual(await pools.reset(command), await pools.reset(command))
    },
    2,
  ],
  [
    'a reset of a session that ended',
    ({ pools, session }) =>
      assert.rejects(pools.reset(resetOf({ ...session, tokenHash: 'old' as TokenHash })), { status: 401 }),
    1,
  ],
  [
    'a reset that the store failed to commit',
    async ({ store, pools, session }) => {
      store.fault = unavailable('no disk')
      await assert.rejects(pools.reset(resetOf(session)), { status: 503 })
      store.fault = undefined
    },
    1,
  ],
  [
    'a reset whose transaction ran twice for its signatures',
    async ({ store, pools, session }) => {
      const { deviceKeys, sign } = identity()
      await pools.upload(uploadOf(session, [], identity().deviceKeys))
      await pools.upload(uploadOf(session, [], deviceKeys))
      const before = store.transactions
      await pools.reset(resetOf(session, { oneTimeKeys: [sign('A=a')] }))
      assert.equal(store.transactions - before, 2)
    },
    2,
  ],
]

for (const [name, before, refused] of CHARGE_ROWS) {
  test(`after ${name}, ${refused} of 3 resets ${refused === 1 ? 'is' : 'are'} over a rate of 2`, async () => {
    const opened = open()
    await before(opened)
    assert.equal(await refusedOf3(opened.pools, opened.session), refused)
  })
}

test('a replay over the rate limit is answered, and does not refill the limit', async () => {
  const { pools, session } = open()
  const command = resetOf(session, { requestId: 'one' })
  const answer = await pools.reset(command)
  await pools.reset(resetOf(session))
  for (let n = 0; n < 3; n++) assert.deepEqual(await pools.reset(command), answer)
  await assert.rejects(pools.reset(resetOf(session)), { status: 429 })
})

test('devices have rate limits of their own; without a limit no reset is refused', async () => {
  const { store, pools, session } = open()
  const account = store.addUser('@bob:test.example' as UserId)
  const other = store.openSession({ account, deviceId: DEVICE, tokenHash: 'b' as TokenHash, now: NOW })
  assert.equal(await refusedOf3(pools, session), 1)
  assert.equal(await refusedOf3(pools, other), 1)
  assert.equal(await refusedOf3(new KeyPools(store, { policy: DEFAULT_POOL_POLICY }), session), 0)
})

function identity(): {
  readonly deviceKeys: UploadedDeviceKeys
  readonly sign: (text: string) => HashedKey
} {
  const pair = signingKeyPair()
  const json = JSON.stringify(pair.sign(USER, { keys: pair.publicKey }, DEVICE))
  return {
    deviceKeys: { json, identity: { ed25519: pair.publicKey as KeyMaterial } },
    sign(text) {
      const { material, ...rest } = key(text)
      const signed = JSON.stringify(pair.sign(USER, { key: material }, DEVICE))
      return { ...rest, material, json: signed, hash: materialHash(material) }
    },
  }
}

function uploadOf(
  session: Session,
  oneTimeKeys: readonly HashedKey[],
  deviceKeys?: UploadedDeviceKeys,
): UploadCommand {
  return { session, oneTimeKeys, fallbackKeys: [], now: NOW, ...(deviceKeys && { deviceKeys }) }
}

test('a device that changed its identity uploads signed keys, in one transaction from the second request on', async () => {
  const { store, pools, session } = open()
  const [former, current] = [identity(), identity()]
  await pools.upload(uploadOf(session, keys('A=a'), former.deviceKeys))
  const transactions = async (upload: UploadCommand): Promise<number> => {
    const before = store.transactions
    await pools.upload(upload)
    return store.transactions - before
  }
  assert.equal(await transactions(uploadOf(session, [current.sign('B=b')], current.deviceKeys)), 2)
  assert.equal(await transactions(uploadOf(session, [current.sign('C=c')])), 1)
  const late = pools.upload(uploadOf(session, [former.sign('D=d')]))
  await assert.rejects(late, { errcode: 'M_INVALID_SIGNATURE' })
  const { pools: seen } = await pools.inspect(session, { limit: 10 })
  assert.deepEqual(
    seen.map(({ available }) => available.map(({ keyId }) => keyId as string)),
    [['B', 'C']],
  )
})

test('signatures are checked against the identity inside the transaction, although another was checked ahead', async () => {
  const { store, pools, session } = open()
  const [first, second, third] = [identity(), identity(), identity()]
  for (const { deviceKeys } of [first, second]) await pools.upload(uploadOf(session, [], deviceKeys))
  await pools.upload(uploadOf(session, [second.sign('A=a')]))
  await new KeyPools(store, { policy: DEFAULT_POOL_POLICY }).upload(uploadOf(session, [], third.deviceKeys))
  await assert.rejects(pools.upload(uploadOf(session, [second.sign('B=b')])), { status: 400 })
  await pools.upload(uploadOf(session, [third.sign('C=c')]))
})

test('where the operator demands signatures, device keys and keys are checked before the transaction', async () => {
  const { store, pools, session } = open(SIGNING_POLICY)
  const { deviceKeys, sign } = identity()
  const unsigned = { ...deviceKeys, json: '{}' }
  await assert.rejects(pools.upload(uploadOf(session, [], unsigned)), { errcode: 'M_INVALID_SIGNATURE' })
  assert.equal(store.transactions, 0)
  await pools.upload(uploadOf(session, [sign('A=a')], deviceKeys))
  assert.equal(store.transactions, 1)
  await assert.rejects(pools.upload(uploadOf(session, keys('B=b'))), { errcode: 'M_INVALID_SIGNATURE' })
})

test('by default the signature of device keys is not checked', async () => {
  const { pools, session } = open()
  const { deviceKeys } = identity()
  await pools.upload(uploadOf(session, keys('A=a'), { ...deviceKeys, json: '{}' }))
})

test('a request that is overtaken by a change of identity four times is decided, a fifth time is an error', async () => {
  const identities = Array.from({ length: 8 }, identity)
  for (const [overtaken, attempts] of [
    [4, 5],
    [5, 5],
  ] as const) {
    const { store, pools, session } = open()
    const faster = new KeyPools(store, { policy: DEFAULT_POOL_POLICY })
    const change = (n: number): Promise<unknown> =>
      faster.upload(uploadOf(session, [], identities[n]?.deviceKeys))
    for (const n of [0, 1]) await change(n)
    store.transactions = 0
    let changes = 0
    store.overtakenBy = async () => {
      if (changes < overtaken) await change(2 + changes++)
    }
    const last = identities[1 + overtaken] ?? assert.fail()
    const upload = pools.upload(uploadOf(session, [last.sign('A=a')]))
    if (overtaken === 4) await upload
    else await assert.rejects(upload, /changed again and again/)
    assert.equal(store.transactions - changes, attempts)
  }
})
