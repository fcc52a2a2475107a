/** What the process that forks and its workers say to each other. */
import type { Config } from '../config/config.ts'
import type { Counts } from '../observe/worker-metrics.ts'

export type ToWorker =
  /** The first: what to serve, checked once for all. */
  { readonly type: 'start'; readonly config: Config } | { readonly type: 'count' }

export type Ready = { readonly url: string; readonly serverName: string }

export type FromWorker =
  | ({ readonly type: 'ready' } & Ready)
  /** It could not start, in words for the operator; it ends after that. */
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'counts'; readonly counts: Counts }
