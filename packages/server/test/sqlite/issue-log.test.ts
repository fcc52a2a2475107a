/**
 * The issue log of the embedded store when it is long: settled in steps, from which a start comes to the same pools.
 */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { PoolInspection } from '../../src/pool/commands.ts'
import type { Session } from '../../src/session.ts'
import { type Core, createCore } from '../../src/store/sqlite/core.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { storeOver } from '../../src/store/sqlite/index.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from '../store-contract/test-device.ts'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'

const OPTIONS = { ...storeOptions(DEFAULT_CONFIG), now: () => 1, onFence: () => {} }
const CROWDED = 'CROWDED' as typeof DEVICE
/** Above it every commit settles twice what it issued, and 64 (key-states.ts). */
const LONG = 50_000
const STEP = 66
const KEYS = 200
const CLAIMED = 150

test('a long log is settled in steps, one pool in several, and a start finds the same after each', async () => {
  using directory = temporaryDirectory()
  const core = createCore(openDatabase(directory.path), OPTIONS)
  const store = storeOver(core)
  let issuedToCrowded = 0
  const claim = async (deviceId: typeof DEVICE, times: number): Promise<(string | undefined)[]> => {
    const targets = Array.from({ length: times }, () => ({
      userId: USER,
      deviceId,
      algorithm: SIGNED_CURVE25519,
    }))
    if (deviceId === CROWDED) issuedToCrowded += times
    const claimed = await store.pools.claim({ claimer: claimer('bob'), targets, now: 3 })
    return claimed.map((key) => key?.keyId)
  }
  const quiet = await login(store, 1)
  const crowded = await login(store, 1, USER, CROWDED)
  const oneTimeKeys = Array.from({ length: KEYS }, (_, n) => makeKey(SIGNED_CURVE25519, `K${1000 + n}`, n))
  await keyPools(store).upload({ session: quiet, oneTimeKeys, fallbackKeys: [], now: 2 })
  const fallbackKeys = [makeKey(SIGNED_CURVE25519, 'FALLBACK', 1000)]
  await keyPools(store).upload({ session: crowded, oneTimeKeys: [], fallbackKeys, now: 2 })

  // The quiet device's issues are the oldest: they are settled first.
  await claim(DEVICE, CLAIMED)
  for (let left = LONG - CLAIMED; left > 0; left -= 1000) await claim(CROWDED, Math.min(left, 1000))
  assert.equal(logged(core), LONG)
  const told = await poolStatus(store, quiet)
  for (let step = 1; step <= 3; step++) {
    await claim(CROWDED, 1)
    assert.equal(logged(core), LONG + 1 - STEP)
    requireSound(core)
    const [found, alsoFound] = await afterStart(directory.path, [quiet, crowded])
    assert.deepEqual(await poolStatus(store, quiet), told)
    assert.deepEqual(found?.status, told)
    assert.deepEqual(alsoFound?.status, await poolStatus(store, crowded))
    assert.equal(alsoFound.pools[0]?.fallback?.issueCount, issuedToCrowded)
    // Up to the bound again.
    await claim(CROWDED, LONG - logged(core))
  }
  assert.deepEqual(await claim(DEVICE, KEYS - CLAIMED + 1), [
    ...oneTimeKeys.slice(CLAIMED).map((key) => key.keyId as string),
    undefined,
  ])
  core.db.transaction(() => core.keys.settleAll())
  assert.equal(logged(core), 0)
  requireSound(core)
  core.db.close()
})

function logged({ db }: Core): number {
  return db.one<{ n: number }>(`select count(*) as n from issue_log`)?.n ?? 0
}

/** A pool's row and the rows of its keys say the same. */
function requireSound({ db }: Core): void {
  const rows = db.all<{ count: number; available: number }>(
    `select count, (select count(*) from one_time_keys as key where key.pool_num = pools.pool_num and state = 0) as available
     from pools`,
  )
  for (const { count, available } of rows) assert.equal(count, available)
}

/** As another process finds the pools when this one is killed now. */
async function afterStart(directory: string, sessions: readonly Session[]): Promise<PoolInspection[]> {
  using copy = temporaryDirectory()
  for (const file of ['latchkey.db', 'latchkey.db-wal']) cpSync(join(directory, file), join(copy.path, file))
  const core = createCore(openDatabase(copy.path), OPTIONS)
  const found = await Promise.all(
    sessions.map((session) => storeOver(core).pools.inspect(session, { limit: 1 })),
  )
  core.db.close()
  return found
}
