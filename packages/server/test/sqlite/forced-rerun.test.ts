/** The transaction of a batch runs again without an operation that fails (store/sqlite/commit-queue.ts). */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'
import { createCore } from '../../src/store/sqlite/core.ts'
import { openDatabase } from '../../src/store/sqlite/open-database.ts'
import { storeOver } from '../../src/store/sqlite/index.ts'
import { type RerunningStore, testForcedRerun } from '../store-contract/forced-rerun.ts'

async function open(policy: PoolPolicy): Promise<RerunningStore> {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-rerun-'))
  const options = { ...storeOptions({ ...DEFAULT_CONFIG, pools: policy }), now: Date.now, onFence: () => {} }
  const db = openDatabase(directory)
  const core = createCore(db, options)
  const store = storeOver(core, db)
  let neighbour: Promise<unknown> | undefined
  let isArmed = false
  const pools: Store['pools'] = {
    claim: (command) => store.pools.claim(command),
    inspect: (session, page) => store.pools.inspect(session, page),
    change(session, wanted, decide) {
      const changed = store.pools.change(session, wanted, decide)
      if (isArmed) {
        // In the same batch as the change, which the request may submit in a later turn.
        neighbour = core.queue.plain(() => {
          throw new TypeError('a bug in another operation of the batch')
        })
      }
      isArmed = false
      return changed
    },
  }
  return {
    store: { ...store, pools },
    async rerun(change) {
      isArmed = true
      const answer = await change()
      assert.ok(neighbour)
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
