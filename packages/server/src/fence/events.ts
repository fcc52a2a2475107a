/** What a store has to say about its fence: to the log, and to the metrics. */

export type FenceEvent =
  | {
      /** This process has raised the fence. */
      readonly kind: 'raised'
      /** How often the fence of this database has been raised. */
      readonly number: number
      /** What showed that the database went back, for people. */
      readonly reason: string
      readonly droppedFallbackKeys: boolean
    }
  /** Another process, or an operator, has raised it. */
  | { readonly kind: 'raised_elsewhere'; readonly number: number }
  /** At the start, without a witness of a database that others have written to. */
  | { readonly kind: 'no_witness'; readonly file: string }
  /** At the start. */
  | { readonly kind: 'stands'; readonly number: number }

export type OnFence = (event: FenceEvent) => void
