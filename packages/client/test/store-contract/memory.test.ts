/** The contract against the store in memory, where a second handle is the same object. */
import { memoryStore } from '../../src/store/memory.ts'
import { testStore } from './run-cases.ts'

testStore({
  name: 'memory',
  make() {
    const store = memoryStore()
    return { open: () => store, discard: () => undefined }
  },
})
