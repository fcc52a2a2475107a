/** Messages between the parent process and its workers. */
import type { Config } from '../config/config.ts'
import type { Counts } from '../observe/worker-metrics.ts'

export type ToWorker =
  /** The first message: the configuration, already validated. */
  { readonly type: 'start'; readonly config: Config } | { readonly type: 'count' }

export type Ready = { readonly url: string; readonly serverName: string }

export type FromWorker =
  | ({ readonly type: 'ready' } & Ready)
  /** The worker failed to start and exits; the message is meant for the operator. */
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'counts'; readonly counts: Counts }
