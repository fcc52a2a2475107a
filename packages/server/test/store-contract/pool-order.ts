/** The order of a device's pools: by name in code points, after a change and after a start alike. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { keyPools } from '@latchkey/testing/key-pools.ts'
import { DEFAULT_POOL_POLICY } from '../../src/pool/policy.ts'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { StoreUnderTest } from './store-under-test.ts'
import { claimer, DEVICE, login, makeKey, USER } from './test-device.ts'

/** In UTF-16 units the last two change places. */
const ALGORITHMS = ['z', '\uFFFD', '\u{1F511}']

export function testPoolOrder(under: StoreUnderTest): void {
  test(`the pools of a device in a ${under.name} store keep their order`, async () => {
    let open = await under.open(DEFAULT_POOL_POLICY)
    try {
      const session = await login(open.store, 1)
      const oneTimeKeys = ALGORITHMS.toReversed().flatMap((algorithm, i) =>
        [0, 1, 2].map((n) => makeKey(algorithm, `K${n}`, 10 * i + n)),
      )
      await keyPools(open.store).upload({ session, oneTimeKeys, fallbackKeys: [], now: 2 })
      for (const { algorithm } of oneTimeKeys.slice(0, -1)) {
        const targets = [{ userId: USER, deviceId: DEVICE, algorithm }]
        await open.store.pools.claim({ claimer: claimer('bob'), targets, now: 3 })
      }
      const changed = [makeKey('z', 'LAST', 99)]
      await keyPools(open.store).upload({ session, oneTimeKeys: changed, fallbackKeys: [], now: 4 })
      const expected = ['zK1', 'zK0', ...ALGORITHMS.slice(1).flatMap((a) => [`${a}K2`, `${a}K1`, `${a}K0`])]
      assert.deepEqual(await issuedInPages(open.store, session), expected)
      open = await open.crash()
      assert.deepEqual(await issuedInPages(open.store, session), expected)
    } finally {
      await open.close()
    }
  })
}

/** All issued keys, two a page, with the order of the pools checked on each page. */
async function issuedInPages(store: Store, session: Session): Promise<string[]> {
  const names: string[] = []
  let from: string | undefined
  do {
    const page = await store.pools.inspect(session, { limit: 2, ...(from !== undefined && { from }) })
    assert.deepEqual(
      page.status.algorithms.map(({ algorithm }) => algorithm as string),
      ALGORITHMS,
    )
    assert.deepEqual(
      page.pools.map(({ algorithm }) => algorithm as string),
      ALGORITHMS,
    )
    names.push(...page.pools.flatMap(({ algorithm, issued }) => issued.map((key) => algorithm + key.keyId)))
    from = page.nextBatch
  } while (from !== undefined)
  return names
}
