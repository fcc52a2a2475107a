/** The contract suite against the embedded store. */
import { copyInPlace } from '@latchkey/testing/directory-snapshot.ts'
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { testAdmin } from './admin.ts'
import { testAuthSessions } from './auth-sessions.ts'
import { testConcurrentClaims } from './concurrent-claims.ts'
import { testDailyBudgets } from './daily-budgets.ts'
import { testDepletion } from './depletion.ts'
import { testEndedSession } from './ended-session.ts'
import { testFloods } from './floods.ts'
import { testKnownNetworks } from './known-networks.ts'
import { testPoolAgainstModel } from './pool-against-model.ts'
import { testPoolOrder } from './pool-order.ts'
import { testRooms } from './rooms.ts'
import { testSyncPages } from './sync-pages.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'

const sqlite: StoreUnderTest = {
  name: 'sqlite',
  prefersSubmissionOrder: true,
  open: async (policy, depletion) =>
    openIn(mkdtempSync(join(tmpdir(), 'latchkey-contract-')), policy, depletion),
}

async function openIn(
  directory: string,
  pools: PoolPolicy,
  depletion?: DepletionDefence,
): Promise<OpenStore> {
  const store = await openSqliteStore({
    ...storeOptions({ ...DEFAULT_CONFIG, dataDir: directory, pools }),
    ...(depletion && { depletion }),
    fence: { directory },
    onFence: ({ kind }) => assert.equal(kind, 'stands', 'a crash does not raise the fence'),
    now: Date.now,
  })
  return {
    store,
    async crash() {
      // A killed process leaves its files as they are, including the log; closing the store would checkpoint it.
      const copy = mkdtempSync(join(tmpdir(), 'latchkey-contract-'))
      const left = readdirSync(directory).filter((file) => !/lock|shm/.test(file))
      for (const file of left) cpSync(join(directory, file), join(copy, file))
      await store.close()
      copyInPlace(copy, directory)
      rmSync(copy, { recursive: true })
      return openIn(directory, pools, depletion)
    },
    async close() {
      await store.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

testPoolAgainstModel(sqlite)
testPoolOrder(sqlite)
testConcurrentClaims(sqlite)
testDepletion(sqlite)
testDailyBudgets(sqlite)
testEndedSession(sqlite)
testFloods(sqlite)
testAuthSessions(sqlite)
testKnownNetworks(sqlite)
testAdmin(sqlite)
testRooms(sqlite)
testSyncPages(sqlite)
