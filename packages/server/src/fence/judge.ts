/**
 * The rule of the rollback fence (key-pool.md "Rollback fence"): detects that a database was rolled back.
 *
 * Each process counts its writes in rows of the database, one per lane, and stores the last acknowledged count (the
 * mark) outside the database. A crash leaves the mark behind the row, which is harmless. Only a database that lost
 * acknowledged writes leaves the row behind the mark: raise the fence, unless the epoch of the mark has ended since,
 * which only a raise does. A raise waits for all writes in progress and blocks new ones, so the end of an epoch
 * includes every write of that epoch that was not lost.
 */

/** The last acknowledged write of a lane, and the store's epoch at that time. */
export type Mark = { readonly n: number; readonly epoch: string }

/** Acknowledged writes of a process, by lane. */
export type Marks = ReadonlyMap<number, Mark>

/** State of the database to compare with the marks. */
export type Counted = {
  readonly epoch: string
  /** The lanes' counters. */
  readonly rows: ReadonlyMap<number, number>
  /** The marks' epochs that have ended in this database. */
  readonly former: ReadonlySet<string>
}

export type Judgement =
  | { readonly kind: 'holds' }
  /** The database was rolled back, and the fence has been raised since. */
  | { readonly kind: 'fenced' }
  | { readonly kind: 'behind'; readonly lane: number; readonly acknowledged: number; readonly found: number }

export function judge(marks: Marks, { epoch, rows, former }: Counted): Judgement {
  let fenced = false
  for (const [lane, mark] of marks) {
    const found = rows.get(lane) ?? 0
    const hasEnded = mark.epoch !== epoch && former.has(mark.epoch)
    const isKnown = mark.epoch === epoch || hasEnded
    // A database without the epoch of an acknowledged write is not the one that wrote it, regardless of its counters.
    if (found >= mark.n && isKnown) continue
    if (!hasEnded) return { kind: 'behind', lane, acknowledged: mark.n, found }
    fenced = true
  }
  return { kind: fenced ? 'fenced' : 'holds' }
}

const DAY_MS = 24 * 60 * 60 * 1000

/** Clients keep the private key of a fallback key for one or two rotations, which are a week apart. */
const KEEP_FALLBACK_KEYS_MS = 6 * DAY_MS

/** Clocks are adjusted by seconds all the time. A larger step backwards may be of any size. */
const CLOCK_STEP_MS = 60_000

export type LostTime = {
  /** The last write that is certainly not lost; milliseconds since 1970, as all of these. Absent without any write. */
  readonly lastWriteTs: number | null | undefined
  /** The newest time that the database has. */
  readonly newestTs: number | null | undefined
  readonly now: number
}

/**
 * Whether to purge fallback keys as well: clients retry when a key is absent, but not when its private key was deleted.
 * The lost writes happened between the last remaining write and now. A clock in doubt, which is behind a time that the
 * database has, proves no age.
 */
export function outlivesFallbackKeys({ lastWriteTs, newestTs, now }: LostTime): boolean {
  if (typeof lastWriteTs !== 'number') return true
  if (Math.max(lastWriteTs, newestTs ?? 0) > now + CLOCK_STEP_MS) return true
  return now - lastWriteTs > KEEP_FALLBACK_KEYS_MS
}

/**
 * Jump of the stream positions when the fence is raised: above every lost position that a client may have seen.
 * Positions stay exact up to 2^53, about nine million jumps.
 */
export const POSITION_JUMP = 1_000_000_000
