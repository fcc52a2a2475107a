/** A store as the contract suite uses it: how it is opened, and how its crash is simulated. */
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
  /** Opens a store over a fresh database. Claims are unlimited unless a depletion defence is given. */
  open(policy: PoolPolicy, depletion?: DepletionDefence): Promise<OpenStore<Tested>>
}

export type OpenStore<Tested extends PoolHistoryStore = Store> = {
  readonly store: Tested
  /** Ends as a killed process would, without any further write to the disk, and opens again. */
  crash(): Promise<OpenStore<Tested>>
  close(): Promise<void>
}
