/**
 * `/sync` for a server without rooms: to-device messages, device lists, account data, and the state of one's own keys.
 *
 *     present a token -> confirm its messages -> read -> news, or first time, or no timeout? -> answer
 *                                                  \-> wait; each wake reads anew; the end of the time answers
 *
 * Counts are those of the reading that is answered, never of the one that began the wait (synapse#17491). A bad or
 * foreign token is answered like a first sync, with everyone the user asked about as changed: an error would make SDKs
 * retry for ever. Source: client-server API, "Syncing"; wake-ups: pool/wake.ts.
 */
import type { Position, Session } from '../session.ts'
import type { SyncReading, SyncStore } from './port.ts'
import { decodeToken, encodeToken, type SyncToken } from './token.ts'
import type { SyncWaiters } from './waiters.ts'

export type SyncRequest = {
  readonly session: Session
  /** The token as it came; undefined for a first sync. */
  readonly since?: string
  readonly timeoutMs: number
  readonly toDeviceLimit: number
  /** What is aborted when the client goes away; asked for only by those who wait. */
  readonly clientGone: () => AbortSignal
  /** Whether the session still holds: a wait ends when it does not. */
  readonly sessionHolds: () => boolean
}

export type SyncAnswer = SyncReading & {
  readonly nextBatch: string
  /** Whether changed users are worth a member at all: first syncs have none. */
  readonly incremental: boolean
}

export async function sync(
  store: SyncStore,
  waiters: SyncWaiters,
  request: SyncRequest,
): Promise<SyncAnswer> {
  const { session } = request
  const token = request.since === undefined ? undefined : validToken(store, session, request.since)
  const since = token?.position
  const incremental = request.since !== undefined
  const read = (): SyncReading =>
    store.read(session, since, {
      toDeviceLimit: request.toDeviceLimit,
      everyoneChanged: incremental && since === undefined,
    })
  if (since !== undefined) {
    store.confirm(session, since)
    if (request.timeoutMs > 0 && !hasNews(read())) {
      await waiters.wait(
        session,
        request.timeoutMs,
        request.clientGone(),
        () => !request.sessionHolds() || hasNews(read()),
      )
    }
  }
  const reading = read()
  store.told(session)
  const nextBatch =
    token?.position === reading.position && request.since !== undefined
      ? request.since
      : encodeToken(store.tokenSecret, session, { epoch: store.epoch, position: reading.position })
  return { ...reading, nextBatch, incremental }
}

/** A token that can be continued from: ours, of this epoch, and not of a future that this store has not seen. */
function validToken(store: SyncStore, session: Session, text: string): SyncToken | undefined {
  const token = decodeToken(store.tokenSecret, session, text)
  return token?.epoch === store.epoch && token.position <= store.position ? token : undefined
}

function hasNews(reading: SyncReading): boolean {
  return (
    reading.signalled ||
    reading.toDevice.length > 0 ||
    reading.changedUsers.length > 0 ||
    reading.accountData.length > 0
  )
}

/** The position of a token for `/keys/changes`; undefined when it can only be answered with everyone. */
export function positionOf(store: SyncStore, session: Session, text: string): Position | undefined {
  return validToken(store, session, text)?.position
}
