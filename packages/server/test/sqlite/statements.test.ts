/**
 * The number of SQLite statements that uploads run. Two of each commit are its check of the owner and of the length of
 * the log. It must not grow.
 */
import assert from 'node:assert/strict'
import { StatementSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { keyPools } from '@latchkey/testing/key-pools.ts'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { RewindableDirectory } from '../support/rewindable-directory.ts'
import { claimer, DEVICE, login, makeKey, USER } from '../store-contract/test-device.ts'

const METHODS = ['run', 'get', 'all'] as const

/** Counts the statements that run, except `begin`, `savepoint`, `release` and `commit`. */
async function countStatements(run: () => Promise<unknown>): Promise<number> {
  let count = 0
  const originals = METHODS.map((name) => [name, StatementSync.prototype[name]] as const)
  for (const [name, original] of originals) {
    Object.assign(StatementSync.prototype, {
      [name](this: StatementSync, ...parameters: never[]) {
        count++
        return Reflect.apply(original, this, parameters)
      },
    })
  }
  try {
    await run()
  } finally {
    for (const [name, original] of originals) Object.assign(StatementSync.prototype, { [name]: original })
  }
  return count
}

const keys = (from: number, count: number): ReturnType<typeof makeKey>[] =>
  Array.from({ length: count }, (_, i) => makeKey(SIGNED_CURVE25519, `K${1000 + from + i}`, from + i))

describe('SQLite statements', () => {
  let directory: RewindableDirectory
  beforeEach(() => {
    directory = new RewindableDirectory()
  })
  afterEach(async () => {
    await directory[Symbol.asyncDispose]()
  })

  test('an upload of two keys runs 12 on a settled device, 111 after 49 claims, and 6 when it is repeated', async () => {
    const { store } = await directory.open()
    const session = await login(store, 1)
    const upload = (from: number, count: number): Promise<unknown> =>
      keyPools(store).upload({ session, oneTimeKeys: keys(from, count), fallbackKeys: [], now: 2 })
    await upload(0, 50)
    const settled = await countStatements(() => upload(50, 2))
    const targets = [{ userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }]
    for (let n = 0; n < 49; n++) await store.pools.claim({ claimer: claimer('bob'), targets, now: 3 })
    // Each issue that is not settled adds two: its row of the log, and the row of its key.
    const afterClaims = await countStatements(() => upload(52, 2))
    const repeated = await countStatements(() => upload(52, 2))
    assert.deepEqual({ settled, afterClaims, repeated }, { settled: 12, afterClaims: 111, repeated: 6 })
  })

  test('an ID that was issued often costs one more, and nothing where its key is known', async () => {
    const { store } = await directory.open()
    const session = await login(store, 1)
    const reused = (material: number): ReturnType<typeof makeKey> =>
      makeKey(SIGNED_CURVE25519, 'REUSED', material)
    const upload = (material: number): Promise<unknown> =>
      keyPools(store).upload({ session, oneTimeKeys: [reused(material)], fallbackKeys: [], now: 2 })
    const targets = [{ userId: USER, deviceId: DEVICE, algorithm: SIGNED_CURVE25519 }]
    for (let material = 0; material < 20; material++) {
      await upload(material)
      await store.pools.claim({ claimer: claimer('bob'), targets, now: 3 })
    }
    await store.pools.inspect(session, { limit: 1 })
    const known = await countStatements(() => upload(0))
    const reusedAgain = await countStatements(() => upload(20))
    assert.deepEqual({ known, reusedAgain }, { known: 6, reusedAgain: 12 })
  })
})
