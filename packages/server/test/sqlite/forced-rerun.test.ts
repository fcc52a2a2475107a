/** The transaction of a batch runs again without an operation that fails (store/sqlite/commit-queue.ts). */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import { createCore } from '../../src/store/sqlite/core.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { storeOver } from '../../src/store/sqlite/index.ts'
import { type RerunningStore, testForcedRerun } from '../store-contract/forced-rerun.ts'

async function open(pools: PoolPolicy): Promise<RerunningStore> {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-rerun-'))
  const options = { ...storeOptions({ ...DEFAULT_CONFIG, pools }), now: Date.now, onFence: () => {} }
  const db = openDatabase(directory)
  const core = createCore(db, options)
  return {
    store: storeOver(core, db),
    async rerun(change) {
      const answer = change()
      const neighbour = core.queue.plain(() => {
        throw new TypeError('a bug in another operation of the batch')
      })
      await assert.rejects(neighbour, TypeError)
      return answer
    },
    async close() {
      await core.queue.close()
      db.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

testForcedRerun('sqlite', open)
