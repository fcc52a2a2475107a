/**
 * Sync tokens: `s1.EPOCH.POSITION.MAC`. Versioned, authenticated and bound to the device, so that a token can bear
 * witness for the rollback fence (key-pool.md) and nobody can confirm messages of another device.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Position, Session } from '../session.ts'

export type SyncToken = { readonly epoch: string; readonly position: Position }

/** Where the stream stands, and where the token's epoch ended if it is a former one of this store. */
export type StreamEnd = SyncToken & { readonly formerEnd: Position | undefined }

const VERSION = 's1'
const MAC_BYTES = 16

export function encodeToken(secret: string, session: Pick<Session, 'deviceRef'>, token: SyncToken): string {
  const { epoch, position } = token
  return `${VERSION}.${epoch}.${position}.${mac(secret, session, token).toString('base64url')}`
}

/** The content of a token made by `encodeToken` for the same device; undefined for anything else. */
export function decodeToken(
  secret: string,
  session: Pick<Session, 'deviceRef'>,
  text: string,
): SyncToken | undefined {
  const [version, epoch, digits, signature, ...rest] = text.split('.')
  if (version !== VERSION || epoch === undefined || signature === undefined || rest.length > 0)
    return undefined
  if (digits === undefined || !/^\d{1,16}$/.test(digits)) return undefined
  const token = { epoch, position: Number(digits) }
  const given = Buffer.from(signature, 'base64url')
  return given.length === MAC_BYTES && timingSafeEqual(given, mac(secret, session, token)) ? token : undefined
}

/** How a reading goes on from a token. */
export type Continuation = {
  /** Undefined: from the beginning. */
  readonly since: Position | undefined
  /** The token is of a former epoch: the answer leaves at once, with a token of this one. */
  readonly newEpoch: boolean
  /** The client may have seen device lists that are no more: everyone it asked about counts as changed. */
  readonly everyone: boolean
  /** The token proves that the database has gone back: the fence is to be raised before anything is answered. */
  readonly proof?: string
}

/**
 * A token of the current epoch goes on from its position. One of a former epoch acknowledges nothing beyond the place
 * where that epoch ended, so no message is lost that the client cannot have seen. One of a position that the stream has
 * not reached, or of an epoch that the store never had, was given out by this store and is proof that it went back.
 */
export function continueFrom(token: SyncToken | undefined, end: StreamEnd): Continuation {
  if (token === undefined) return BEGINNING
  const { epoch, position } = token
  if (epoch === end.epoch) {
    if (position <= end.position) return { since: position, newEpoch: false, everyone: false }
    return {
      ...BEGINNING,
      proof: `a client has a sync token of position ${position}, the end is ${end.position}`,
    }
  }
  const { formerEnd } = end
  if (formerEnd === undefined)
    return { ...BEGINNING, proof: `a client has a sync token of the unknown epoch ${epoch}` }
  return { since: Math.min(position, formerEnd), newEpoch: true, everyone: position > formerEnd }
}

const BEGINNING: Continuation = { since: undefined, newEpoch: false, everyone: false }

function mac(
  secret: string,
  { deviceRef }: Pick<Session, 'deviceRef'>,
  { epoch, position }: SyncToken,
): Buffer {
  const text = `${VERSION}.${epoch}.${position}.${deviceRef}`
  return createHmac('sha256', secret).update(text).digest().subarray(0, MAC_BYTES)
}
