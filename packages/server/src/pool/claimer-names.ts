/**
 * How long the numbered name of a claimer is kept: until the records of its claims are past their retention. A claim
 * notes the time in the name's row at most once a day, so the row may be a day older than the last record. A process
 * that remembers a number uses it only while its note is fresh, so it uses none that a sweep has deleted.
 */
const NOTE_EVERY_MS = 24 * 60 * 60 * 1000

/** Whether a claim may use the number without a new note. */
export function isFreshNote(notedTs: number, now: number): boolean {
  return now - notedTs < NOTE_EVERY_MS
}

/** Names noted before this have no record after `cutoff`. */
export function unusedBefore(cutoff: number): number {
  return cutoff - NOTE_EVERY_MS
}
