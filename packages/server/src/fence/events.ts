/** Fence events of a store, for the log and the metrics. */

export type FenceEvent =
  | {
      /** This process has raised the fence. */
      readonly kind: 'raised'
      /** How often the fence of this database has been raised. */
      readonly number: number
      /** Human-readable evidence of the rollback. */
      readonly reason: string
      readonly droppedFallbackKeys: boolean
    }
  /** Another process, or an operator, has raised it. */
  | { readonly kind: 'raised_elsewhere'; readonly number: number }
  /** At startup, without a witness for a database that other processes have written to. */
  | {
      readonly kind: 'no_witness'
      readonly file: string
      /** The witness that last opened the database, with its host; undefined if none is recorded. */
      readonly last?: string
    }
  /** At the first start: the witness is in the data directory, because no better place is known. */
  | { readonly kind: 'witness_with_data'; readonly file: string }
  /** At startup: the current state. */
  | { readonly kind: 'stands'; readonly number: number }

export type OnFence = (event: FenceEvent) => void
