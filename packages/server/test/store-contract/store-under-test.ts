/** What the contract suite needs of a store: how it is opened, and how a crash is made of it. */
import type { PoolHistoryStore } from '@latchkey/testing/memory-pool-store.ts'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'

export type StoreUnderTest<Tested extends PoolHistoryStore = Store> = {
  readonly name: string
  /**
   * Operations that are submitted together usually take effect in the order of their submission; one whose signatures
   * must be checked first takes effect later. Any order is correct if no operation sees half of another.
   */
  readonly prefersSubmissionOrder: boolean
  /** Opens a store over a fresh database. Without a defence claims are not limited. */
  open(policy: PoolPolicy, depletion?: DepletionDefence): Promise<OpenStore<Tested>>
}

export type OpenStore<Tested extends PoolHistoryStore = Store> = {
  readonly store: Tested
  /** Ends as a killed process would, with nothing written that is not on the disk now, and opens again. */
  crash(): Promise<OpenStore<Tested>>
  close(): Promise<void>
}
