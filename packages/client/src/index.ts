/** @latchkey/client: keeps a Matrix device's one-time keys and its homeserver in step. */
export { type Changes, type Snapshot, StaleStoreError, type Store, StoreError } from './store/store.ts'
export { memoryStore } from './store/memory.ts'
export { indexedDbStore, type IndexedDbStoreOptions } from './store/indexed-db.ts'
export type { ClientEvent, ClientEventType, OnEvent, ServerLevel, Verdict } from './events.ts'
export { KeyManager } from './manager/key-manager.ts'
export type { KeyManagerOptions } from './manager/options.ts'
export type { LoopOptions } from './manager/loop.ts'
export type { OutgoingRequest, RequestAnswer } from './manager/requests.ts'
export type { KeyManagerStatus } from './manager/status.ts'
export type { SyncTicket } from './manager/sync-answer.ts'
export type { DecryptedMessage } from './manager/records.ts'
export type { Failure, Received } from './manager/inbox.ts'
export { OlmRefusal } from './olm/olm-account.ts'
export type {
  IdentityKeys,
  OlmAccount,
  OlmAccounts,
  OlmMessage,
  OlmSession,
  OpenedSession,
} from './olm/olm-account.ts'
export { type Guard, guardFetch, type GuardOptions, type GuardStatus } from './guard/guard-fetch.ts'
export type { Budget, HealCause, HealRecord } from './heal/heals.ts'
export type { Explanation } from './ledger/explain.ts'
