/**
 * The rule of the rollback fence (key-pool.md "Rollback fence"): when a database has gone back, and when it has not.
 *
 * Every process counts its writes in a row of the database, one for each lane in which it writes, and keeps the last
 * number that it acknowledged outside of the database. A crash leaves the number outside behind the row: no alarm. Only a
 * database that lost what was acknowledged leaves the row behind the number: raise, unless the epoch in which it was
 * acknowledged has been ended since, which only a raise does. A raise waits for every write that has begun and holds up
 * the others, so an epoch's end has in it all that was written in that epoch and not lost.
 */

/** The last write that a lane acknowledged, and the store's epoch in which it wrote it. */
export type Mark = { readonly n: number; readonly epoch: string }

/** What a process acknowledged, by lane. */
export type Marks = ReadonlyMap<number, Mark>

/** What the database has of it. */
export type Counted = {
  readonly epoch: string
  /** The lanes' counters. */
  readonly rows: ReadonlyMap<number, number>
  /** Which of the marks' epochs have ended in this database. */
  readonly former: ReadonlySet<string>
}

export type Judgement =
  | { readonly kind: 'holds' }
  /** It went back, and the fence has been raised for it since. */
  | { readonly kind: 'fenced' }
  | { readonly kind: 'behind'; readonly lane: number; readonly acknowledged: number; readonly found: number }

export function judge(marks: Marks, { epoch, rows, former }: Counted): Judgement {
  let fenced = false
  for (const [lane, mark] of marks) {
    const found = rows.get(lane) ?? 0
    const hasEnded = mark.epoch !== epoch && former.has(mark.epoch)
    const isKnown = mark.epoch === epoch || hasEnded
    // A database that never had the epoch of an acknowledged write is not the one that wrote it, however far it counts.
    if (found >= mark.n && isKnown) continue
    if (!hasEnded) return { kind: 'behind', lane, acknowledged: mark.n, found }
    fenced = true
  }
  return { kind: fenced ? 'fenced' : 'holds' }
}

const DAY_MS = 24 * 60 * 60 * 1000

/** Clients keep the private half of a fallback key for a rotation or two, which come a week apart. */
const KEEP_FALLBACK_KEYS_MS = 6 * DAY_MS

/**
 * Whether fallback keys are to go too: an absent key is retried, a dead one is not. What was lost lies between the last
 * write that is left and now.
 *
 * @param lastWriteTs milliseconds since 1970; undefined when nothing was ever written
 */
export function outlivesFallbackKeys(lastWriteTs: number | undefined, now: number): boolean {
  // A clock that ran ahead says nothing either.
  if (lastWriteTs === undefined || lastWriteTs > now + DAY_MS) return true
  return now - lastWriteTs > KEEP_FALLBACK_KEYS_MS
}

/**
 * How far stream positions jump when the fence is raised: above every position that was lost, whoever has seen it.
 * Positions stay exact up to 2^53, some nine million jumps.
 */
export const POSITION_JUMP = 1_000_000_000
