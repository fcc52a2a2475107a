/** A store as the contract suite uses it: how it is opened, and how its crash is simulated. */
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'

export type StoreUnderTest = {
  readonly name: string
  /**
   * Operations that are submitted together usually take effect in the order of their submission; one whose signatures
   * must be checked first takes effect later. Any order is correct if no operation sees half of another.
   */
  readonly prefersSubmissionOrder: boolean
  /** Opens a store over a fresh database. Claims are unlimited unless a depletion defence is given. */
  open(policy: PoolPolicy, depletion?: DepletionDefence): Promise<OpenStore>
}

export type OpenStore = {
  readonly store: Store
  /** Ends as a killed process would, without any further write to the disk, and opens again. */
  crash(): Promise<OpenStore>
  close(): Promise<void>
}
