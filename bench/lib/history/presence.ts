/** When a key was in its pool for certain, when it may have been, and where it stands in the order. Derived from its events. */
import type { Key, KeyEvent, KeyEventKind } from './facts.ts'

export type Presence = {
  readonly key: Key
  /** At every moment between the two it was there. */
  readonly certain: readonly { readonly from: number; readonly to: number }[]
  /** At no other moment it was there. */
  readonly possible: { readonly from: number; readonly to: number }
  /** Its place in the log was given before this moment; infinite when that is not known. */
  readonly enteredBy: number
  /** Its place was not given before this moment. */
  readonly enteredFrom: number
  /** The upload that stored it, when it is certain which one. */
  readonly upload: number | undefined
  /** It was there at least until this moment, once it had entered. */
  readonly stayedUntil: number
  readonly issued: KeyEvent | undefined
}

const ALWAYS = Number.POSITIVE_INFINITY

/** Undefined for a key that was certainly never stored. */
export function presenceOf(key: Key): Presence | undefined {
  const of = (...kinds: readonly KeyEventKind[]): KeyEvent[] =>
    key.events.filter(({ kind }) => kinds.includes(kind))
  const stored = of('stored')
  const lost = key.maybe.filter(({ kind }) => kind === 'stored')
  const puts = [...stored, ...lost]
  if (puts.length === 0) return undefined
  const issued = of('issued')[0]
  const withdrawn = of('withdrawn')
  const leaves = [...of('issued', 'withdrawn', 'ended'), ...possibleLeaves(key, issued, puts.length)]
  const stays = (put: KeyEvent): number =>
    Math.min(ALWAYS, ...leaves.flatMap(({ begin, end }) => (end > put.begin ? [begin] : [])))
  const entered = [...stored, ...of('already_stored')]
  const mayComeBack =
    puts.length > 1 && [...key.events, ...key.maybe].some(({ kind }) => kind === 'withdrawn')
  const lifeEnds = [...key.lives].map(({ stop }) => stop?.end ?? ALWAYS)
  const [onlyPut] = stored
  return {
    key,
    certain: entered.map((put) => ({ from: put.end, to: stays(put) })).filter(({ from, to }) => from < to),
    possible: {
      from: Math.min(...puts.map(({ begin }) => begin)),
      to: Math.min(
        issued?.end ?? ALWAYS,
        Math.max(...lifeEnds),
        puts.length === 1 ? Math.min(ALWAYS, ...withdrawn.map(({ end }) => end)) : ALWAYS,
      ),
    },
    enteredBy: mayComeBack ? ALWAYS : Math.min(ALWAYS, ...entered.map(({ end }) => end)),
    enteredFrom: Math.min(...puts.map(({ begin }) => begin)),
    upload: puts.length === 1 ? onlyPut?.n : undefined,
    stayedUntil: Math.min(...puts.map(stays)),
    issued,
  }
}

/**
 * Requests without an answer may have taken it, but not before it was last known to be there: what is issued never comes
 * back, and what was withdrawn only by another upload.
 */
function possibleLeaves(key: Key, issued: KeyEvent | undefined, puts: number): KeyEvent[] {
  const lastSeen = Math.max(
    Number.NEGATIVE_INFINITY,
    ...key.events
      .filter(({ kind }) => ['issued', 'withdrawn', 'already_stored', 'seen available'].includes(kind))
      .map(({ begin }) => begin),
  )
  return key.maybe.flatMap((event) => {
    if (event.kind === 'stored' || (event.kind === 'issued' && issued !== undefined)) return []
    const final = event.kind === 'issued' || puts === 1
    return [{ ...event, begin: final ? Math.max(event.begin, lastSeen) : event.begin }]
  })
}
