/**
 * What a history is made of: one request and its answer as they were on the wire, and the moments between which the
 * server may have carried it out. Moments are numbers of one counter of the client: of two requests the first came before
 * the second only if its answer was there before the second was begun.
 */

/** One line of a history. */
export type Exchange = {
  /** Its number, by which a violation names it. */
  readonly n: number
  /** Taken before the request was sent. */
  readonly begin: number
  /** Taken when the answer was there. Absent: no answer came, and the request may be carried out at any later moment. */
  readonly end?: number
  /** The process that was asked; only for people to read. */
  readonly process?: number
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly token?: string
  readonly body?: string
  readonly status?: number
  readonly answer?: string
}

/** When something happened: at one moment between the two. */
export type Span = { readonly n: number; readonly begin: number; readonly end: number }

export type Rule =
  | 'answers'
  | 'session'
  | 'uploaded'
  | 'once'
  | 'enter once'
  | 'gone'
  | 'outcome'
  | 'visible'
  | 'order'
  | 'miss'
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
  /** The numbers of the requests that show it. */
  readonly requests: readonly number[]
}

/** The history cannot be judged: it is not one that the checker was made for. */
export class MalformedHistory extends Error {
  override readonly name = 'MalformedHistory'
}
