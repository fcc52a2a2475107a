/** A long issue log of the embedded store: it is settled in steps, and after each a start finds the same pools. */
import { keyPools } from '@latchkey/testing/key-pools.ts'
import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { PoolInspection } from '../../src/pool/commands.ts'
import type { Session } from '../../src/session.ts'
import { createCore } from '../../src/store/sqlite/core.ts'
import type { Reader } from '../../src/store/sqlite/database.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { storeOver } from '../../src/store/sqlite/index.ts'
import { claimer, DEVICE, login, makeKey, poolStatus, USER } from '../store-contract/test-device.ts'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'

const OPTIONS = { ...storeOptions(DEFAULT_CONFIG), now: () => 1, onFence: () => {} }
const CROWDED = 'CROWDED' as typeof DEVICE
/** Above this length every commit settles twice its number of issues, and 64 more (key-states.ts). */
const LONG = 50_000
const STEP = 66
const KEYS = 200
const CLAIMED = 150

test('a long log is settled in steps, and a start finds the same pools after each', async () => {
  using directory = temporaryDirectory()
  const db = openDatabase(directory.path)
  const core = createCore(db, OPTIONS)
  const store = storeOver(core, db)
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

  // The issues of the quiet device are the oldest and are settled first.
  await claim(DEVICE, CLAIMED)
  for (let left = LONG - CLAIMED; left > 0; left -= 1000) await claim(CROWDED, Math.min(left, 1000))
  assert.equal(logged(db), LONG)
  const expected = await poolStatus(store, quiet)
  for (let step = 1; step <= 3; step++) {
    await claim(CROWDED, 1)
    assert.equal(logged(db), LONG + 1 - STEP)
    requireSound(db)
    const [found, alsoFound] = await afterStart(directory.path, [quiet, crowded])
    assert.deepEqual(await poolStatus(store, quiet), expected)
    assert.deepEqual(found?.status, expected)
    assert.deepEqual(alsoFound?.status, await poolStatus(store, crowded))
    assert.equal(alsoFound.pools[0]?.fallback?.issueCount, issuedToCrowded)
    // Fills the log up to the bound again.
    await claim(CROWDED, LONG - logged(db))
  }
  assert.deepEqual(await claim(DEVICE, KEYS - CLAIMED + 1), [
    ...oneTimeKeys.slice(CLAIMED).map((key) => key.keyId as string),
    undefined,
  ])
  db.transaction((tx) => core.keys.settleAll(tx))
  assert.equal(logged(db), 0)
  requireSound(db)
  db.close()
})

function logged(db: Reader): number {
  return db.one<{ n: number }>(`select count(*) as n from issue_log`)?.n ?? 0
}

/** Requires that the count of each pool's row is the number of its available keys. */
function requireSound(db: Reader): void {
  const rows = db.all<{ count: number; available: number }>(
    `select count, (select count(*) from one_time_keys as key where key.pool_num = pools.pool_num and state = 0) as available
     from pools`,
  )
  for (const { count, available } of rows) assert.equal(count, available)
}

/** The pools that another process finds if this one is killed now. */
async function afterStart(directory: string, sessions: readonly Session[]): Promise<PoolInspection[]> {
  using copy = temporaryDirectory()
  for (const file of ['latchkey.db', 'latchkey.db-wal']) cpSync(join(directory, file), join(copy.path, file))
  const db = openDatabase(copy.path)
  const store = storeOver(createCore(db, OPTIONS), db)
  const found = await Promise.all(sessions.map((session) => store.pools.inspect(session, { limit: 1 })))
  db.close()
  return found
}
