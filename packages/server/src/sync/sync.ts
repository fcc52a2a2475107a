/**
 * `/sync` for a server without rooms: to-device messages, device lists, account data, and the state of the device's
 * keys.
 *
 *     present a token -> register with the wake-ups -> read and confirm -> news, or nothing to wait for? -> answer
 *                                                      ^                   \-> wait for a wake, or the end
 *                                                      \---------------------- of the time: read again
 *
 * No wake-up is lost: a sync that registers before it reads is woken by every commit that the reading may have missed,
 * and a commit during a reading causes another one. Counts are those of the reading that is answered, never of the one
 * that began the wait (synapse#17491). A bad or foreign token is answered like a first sync, with all tracked users as
 * changed: an error would make SDKs retry without end. Source: client-server API, "Syncing"; wake-ups: pool/wake.ts.
 */
import type { Session } from '../session.ts'
import type { PageLimits } from './page.ts'
import type { SyncReading, SyncStore } from './port.ts'
import { isAnswer } from './reading.ts'
import { decodeToken, encodeToken } from './token.ts'
import type { SyncWaiters } from './waiters.ts'

export type SyncRequest = {
  readonly session: Session
  /** The token as it came; undefined for a first sync. */
  readonly since?: string
  readonly timeoutMs: number
  readonly page: PageLimits
  /** Aborted when the client disconnects. Requested only by syncs that wait. */
  readonly clientGone: () => AbortSignal
}

export type SyncAnswer = SyncReading & {
  readonly nextBatch: string
  /** Whether the answer has a member for changed users: first syncs have none. */
  readonly incremental: boolean
}

/** @throws {MatrixError} 401 when the session ends in the meantime. */
export async function sync(
  store: SyncStore,
  waiters: SyncWaiters,
  request: SyncRequest,
): Promise<SyncAnswer> {
  const { session, since, timeoutMs, page } = request
  const incremental = since !== undefined
  const token = since === undefined ? undefined : decodeToken(store.tokenSecret, session, since)
  using waiter =
    token === undefined || timeoutMs === 0
      ? undefined
      : waiters.register(session, timeoutMs, request.clientGone)
  for (let confirms = true; ; confirms = false) {
    // Checked before the reading: if the time runs out during it, its counts may be old by then.
    const waiting = waiter?.over === false ? waiter : undefined
    const mayWait = waiting !== undefined
    const reading = await store.read(session, {
      ...(token !== undefined && { token }),
      confirms,
      everyoneFromBeginning: incremental,
      page,
      mayWait,
    })
    if (waiting === undefined || isAnswer(reading, { mayWait })) {
      return { ...reading, nextBatch: nextBatch(store, request, reading), incremental }
    }
    await waiting.next()
  }
}

/** If the position did not move, the token is the presented one: its text need not be computed again. */
function nextBatch(store: SyncStore, { session, since }: SyncRequest, reading: SyncReading): string {
  return since !== undefined && !reading.newEpoch && reading.since === reading.position
    ? since
    : encodeToken(store.tokenSecret, session, reading)
}
