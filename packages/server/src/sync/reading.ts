/**
 * One reading of `/sync`: where it begins (its end: page.ts), and what it acknowledges and advertises. Acknowledged:
 * the device has shown a token, so it received the answer with that token; messages up to it are deleted, and its
 * counts are the ones the device knows. Advertised: the counts of an answer that may not arrive.
 */
import type { Position } from '../session.ts'
import type { SyncQuery, SyncReading } from './port.ts'
import type { Continuation } from './token.ts'

/** Below every position: everything is newer. */
export const BEGINNING: Position = -1

export type ReadingRange = {
  /** Messages, signals and account data newer than this. */
  readonly from: Position
  /** Device lists that changed after this; undefined: none. */
  readonly listsFrom: Position | undefined
}

/** A first sync has no device lists. A token that cannot be continued counts as a first sync with all of them. */
export function rangeOf(
  { since, listsSince, everyone }: Pick<Continuation, 'since' | 'listsSince' | 'everyone'>,
  { everyoneFromBeginning }: Pick<SyncQuery, 'everyoneFromBeginning'>,
): ReadingRange {
  if (since === undefined) {
    return { from: BEGINNING, listsFrom: everyoneFromBeginning ? BEGINNING : undefined }
  }
  return { from: since, listsFrom: everyone ? BEGINNING : listsSince }
}

/** The position up to which the request acknowledges answers; undefined: it acknowledges nothing. */
export function acknowledgedUpTo(
  { since }: Pick<Continuation, 'since'>,
  { confirms }: Pick<SyncQuery, 'confirms'>,
): Position | undefined {
  return confirms ? since : undefined
}

/** Whether the reading is answered now. Otherwise the request waits for a wake-up and reads again. */
export function isAnswer(reading: SyncReading, { mayWait }: Pick<SyncQuery, 'mayWait'>): boolean {
  return !mayWait || reading.since === undefined || reading.newEpoch || hasNews(reading)
}

/**
 * Whether the answer's counts are advertised with its position. A token that does not move proves nothing when it is
 * presented again: the answer may have been lost.
 */
export function advertisesCounts(reading: SyncReading, query: Pick<SyncQuery, 'mayWait'>): boolean {
  return reading.position !== reading.since && isAnswer(reading, query)
}

function hasNews(reading: SyncReading): boolean {
  return (
    reading.signalled ||
    reading.toDevice.length > 0 ||
    reading.changedUsers.length > 0 ||
    reading.accountData.length > 0
  )
}
