/** The contract suite against the pools in memory: the rules alone, without a database. */
import { memoryStore, type PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import { testConcurrentClaims } from './concurrent-claims.ts'
import { testDailyBudgets } from './daily-budgets.ts'
import { testDepletion } from './depletion.ts'
import { testPoolAgainstModel } from './pool-against-model.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'

const memory: StoreUnderTest<PoolHistoryStore> = {
  name: 'memory',
  prefersSubmissionOrder: true,
  open: async (policy, depletion) => opened(memoryStore(policy, depletion)),
}

/** Every change is complete when its promise is made, so a crash loses nothing. */
function opened(store: PoolHistoryStore): OpenStore<PoolHistoryStore> {
  return { store, crash: async () => opened(store), close: async () => {} }
}

testPoolAgainstModel(memory, 300)
testConcurrentClaims(memory)
testDepletion(memory)
testDailyBudgets(memory)
