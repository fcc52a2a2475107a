/** When a key was certainly or possibly available, and its place in the pool's order. Derived from its events. */
import type { Key, KeyEvent, KeyEventKind } from './facts.ts'

export type Presence = {
  readonly key: Key
  /** Periods in which the key was available at every moment. */
  readonly certain: readonly { readonly from: number; readonly to: number }[]
  /** The period outside of which the key was never available. */
  readonly possible: { readonly from: number; readonly to: number }
  /** The key got its place in the log before this moment; infinite if unknown. */
  readonly enteredBy: number
  /** The key did not get its place before this moment. */
  readonly enteredFrom: number
  /** The upload that stored it, if certain. */
  readonly upload: number | undefined
  /** Once stored, the key was available at least until this moment. */
  readonly stayedUntil: number
  readonly issued: KeyEvent | undefined
}

const ALWAYS = Number.POSITIVE_INFINITY

/** Undefined if the key was certainly never stored. */
export function presenceOf(key: Key): Presence | undefined {
  const of = (...kinds: readonly KeyEventKind[]): KeyEvent[] =>
    key.events.filter(({ kind }) => kinds.includes(kind))
  const stored = of('stored')
  const lost = key.maybe.filter(({ kind }) => kind === 'stored')
  const stores = [...stored, ...lost]
  if (stores.length === 0) return undefined
  const issued = of('issued')[0]
  const withdrawn = of('withdrawn')
  const leaves = [...of('issued', 'withdrawn', 'ended'), ...possibleLeaves(key, issued, stores.length)]
  const stays = (store: KeyEvent): number =>
    Math.min(ALWAYS, ...leaves.flatMap(({ begin, end }) => (end > store.begin ? [begin] : [])))
  const entered = [...stored, ...of('already_stored')]
  const mayBeStoredAgain =
    stores.length > 1 && [...key.events, ...key.maybe].some(({ kind }) => kind === 'withdrawn')
  const sessionEnds = [...key.sessions].map(({ stop }) => stop?.end ?? ALWAYS)
  const [onlyStore] = stored
  return {
    key,
    certain: entered
      .map((store) => ({ from: store.end, to: stays(store) }))
      .filter(({ from, to }) => from < to),
    possible: {
      from: Math.min(...stores.map(({ begin }) => begin)),
      to: Math.min(
        issued?.end ?? ALWAYS,
        Math.max(...sessionEnds),
        stores.length === 1 ? Math.min(ALWAYS, ...withdrawn.map(({ end }) => end)) : ALWAYS,
      ),
    },
    enteredBy: mayBeStoredAgain ? ALWAYS : Math.min(ALWAYS, ...entered.map(({ end }) => end)),
    enteredFrom: Math.min(...stores.map(({ begin }) => begin)),
    upload: stores.length === 1 ? onlyStore?.n : undefined,
    stayedUntil: Math.min(...stores.map(stays)),
    issued,
  }
}

/**
 * Requests without an answer may have removed the key, but not before it was last seen available: an issued key is
 * never stored again, and a withdrawn one only by another upload.
 */
function possibleLeaves(key: Key, issued: KeyEvent | undefined, stores: number): KeyEvent[] {
  const lastSeen = Math.max(
    Number.NEGATIVE_INFINITY,
    ...key.events
      .filter(({ kind }) => ['issued', 'withdrawn', 'already_stored', 'seen available'].includes(kind))
      .map(({ begin }) => begin),
  )
  return key.maybe.flatMap((event) => {
    if (event.kind === 'stored' || (event.kind === 'issued' && issued !== undefined)) return []
    const final = event.kind === 'issued' || stores === 1
    return [{ ...event, begin: final ? Math.max(event.begin, lastSeen) : event.begin }]
  })
}
