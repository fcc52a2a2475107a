/** The contract suite against the embedded store. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { testConcurrentClaims } from './concurrent-claims.ts'
import { testDepletion } from './depletion.ts'
import { testPoolAgainstModel } from './pool-against-model.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'

const sqlite: StoreUnderTest = {
  name: 'sqlite',
  keepsSubmissionOrder: true,
  remembersRefusals: false,
  open: async (policy, depletion) =>
    openIn(mkdtempSync(join(tmpdir(), 'latchkey-contract-')), policy, depletion),
}

function openIn(directory: string, pools: PoolPolicy, depletion?: DepletionDefence): OpenStore {
  const store = openSqliteStore({
    ...storeOptions({ ...DEFAULT_CONFIG, dataDir: directory, pools }),
    ...(depletion && { depletion }),
    now: Date.now,
  })
  const discard = async (): Promise<void> => {
    await store.close()
    rmSync(directory, { recursive: true, force: true })
  }
  return {
    store,
    async crash() {
      // What a killed process leaves behind is the files as they are, log included; closing would tidy them up.
      const copy = mkdtempSync(join(tmpdir(), 'latchkey-contract-'))
      for (const file of ['latchkey.db', 'latchkey.db-wal']) cpSync(join(directory, file), join(copy, file))
      await discard()
      return openIn(copy, pools, depletion)
    },
    close: discard,
  }
}

testPoolAgainstModel(sqlite)
testConcurrentClaims(sqlite)
testDepletion(sqlite)
