/** @latchkey/client: keeps a Matrix device's one-time keys and its homeserver in step. */
export { type Changes, type Snapshot, StaleStoreError, type Store, StoreError } from './store/store.ts'
export { memoryStore } from './store/memory.ts'
export type { ClientEvent, ClientEventType, OnEvent, ServerLevel, Verdict } from './events.ts'
