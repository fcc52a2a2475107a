/** The contract suite against the embedded store. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { testConcurrentClaims } from './concurrent-claims.ts'
import { testPoolAgainstModel } from './pool-against-model.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'

const sqlite: StoreUnderTest = {
  name: 'sqlite',
  open: async (policy) => openIn(mkdtempSync(join(tmpdir(), 'latchkey-contract-')), policy),
}

function openIn(directory: string, pools: PoolPolicy): OpenStore {
  const store = openSqliteStore({
    ...storeOptions({ ...DEFAULT_CONFIG, dataDir: directory, pools }),
    now: Date.now,
  })
  const discard = (): void => {
    store.close()
    rmSync(directory, { recursive: true, force: true })
  }
  return {
    store,
    async crash() {
      // What a killed process leaves behind is the files as they are, log included; closing would tidy them up.
      const copy = mkdtempSync(join(tmpdir(), 'latchkey-contract-'))
      for (const file of ['latchkey.db', 'latchkey.db-wal']) cpSync(join(directory, file), join(copy, file))
      discard()
      return openIn(copy, pools)
    },
    close: async () => discard(),
  }
}

testPoolAgainstModel(sqlite)
testConcurrentClaims(sqlite)
