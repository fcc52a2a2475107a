/**
 * When and from where devices were last seen. Requests only note it. It is written for many devices at once, and lost
 * at worst: a commit for each first request of a device would cost more than the request.
 */
import type { TokenHash } from '../session.ts'
import { LRUCache } from 'lru-cache'

/** Shortest time between two notes of one session. */
const INTERVAL_MS = 10 * 60 * 1000
/** Sessions whose last note is remembered, about 100 bytes each. */
const MAX_SESSIONS = 50_000
/** Longest time from a note to its write. */
export const WRITE_SEEN_AFTER_MS = 5_000
/** Noted devices of one write. */
export const WRITE_SEEN_AT = 5_000

export type Seen = { readonly ts: number; readonly ip: string }

/** The last note of each session. */
export class SeenSessions {
  readonly #notedTs = new LRUCache<TokenHash, number>({ max: MAX_SESSIONS })

  /** Whether to note a request at `now`. A clock that moved back by more than the interval does not stop notes. */
  isDue(session: TokenHash, now: number): boolean {
    const notedTs = this.#notedTs.get(session)
    return notedTs === undefined || Math.abs(now - notedTs) >= INTERVAL_MS
  }

  noted(session: TokenHash, now: number): void {
    this.#notedTs.set(session, now)
  }
}
