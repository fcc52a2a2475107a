/**
 * The elements of a history: a request and its answer as sent, and the moments between which the server may have
 * executed it. Moments are values of one counter in the client: a request came before another only if its answer had
 * arrived before the other began.
 */

/** One line of a history. */
export type Exchange = {
  /** Number of the request, used in violations. */
  readonly n: number
  /** Taken before the request was sent. */
  readonly begin: number
  /** Taken when the answer arrived. Absent: no answer arrived; the request may be executed at any later moment. */
  readonly end?: number
  /** The server process that received it; for display only. */
  readonly process?: number
  readonly method: string
  /** Includes the query. */
  readonly path: string
  readonly token?: string
  readonly body?: string
  readonly status?: number
  readonly answer?: string
}

/** The event happened at one moment between `begin` and `end`. */
export type Span = { readonly n: number; readonly begin: number; readonly end: number }

export type Rule =
  | 'answers'
  | 'session'
  | 'uploaded'
  | 'issued once'
  | 'stored once'
  | 'removed'
  | 'outcome'
  | 'visible'
  | 'order'
  | 'false miss'
  | 'fallback'
  | 'count'
  | 'version'
  | 'replay'
  | 'delivered'
  | 'message order'
  | 'query'

export type Violation = {
  readonly rule: Rule
  readonly text: string
  /** Numbers of the requests that prove it. */
  readonly requests: readonly number[]
}

/** The history has requests that the checker does not support. */
export class MalformedHistory extends Error {
  override readonly name = 'MalformedHistory'
}
