/** What the contract suite needs of a store: how it is opened, and how a crash is made of it. */
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'

export type StoreUnderTest = {
  readonly name: string
  /**
   * Operations that are submitted together usually take effect in the order of their submission; one whose signatures have
   * to be checked first takes effect later. Any order is right, as long as no operation sees half of another.
   */
  readonly prefersSubmissionOrder: boolean
  /** Opens a store over a fresh database. Without a defence claims are not limited. */
  open(policy: PoolPolicy, depletion?: DepletionDefence): Promise<OpenStore>
}

export type OpenStore = {
  readonly store: Store
  /** Ends as a killed process would, with nothing written that is not on the disk now, and opens again. */
  crash(): Promise<OpenStore>
  close(): Promise<void>
}
