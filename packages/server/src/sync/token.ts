/**
 * Sync tokens: `s1.EPOCH.POSITION.MAC`. Versioned, authenticated and bound to the device, so that a token can be
 * evidence for the rollback fence (key-pool.md) and no client can confirm messages of another device.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Position, Session } from '../session.ts'

export type SyncToken = { readonly epoch: string; readonly position: Position }

/** The end of the stream, and the end of the token's epoch if it is a former one of this store. */
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

/** How a reading continues from a token. */
export type Continuation = {
  /** Undefined: from the beginning. */
  readonly since: Position | undefined
  /** The token is of a former epoch: the answer leaves at once, with a token of this one. */
  readonly newEpoch: boolean
  /** The client may have seen device lists that are lost: all tracked users count as changed. */
  readonly everyone: boolean
  /** The token proves a rollback of the database: the fence must be raised before anything is answered. */
  readonly proof?: string
}

/**
 * A token of the current epoch continues from its position. One of a former epoch acknowledges nothing beyond the end
 * of that epoch, so no message is lost that the client cannot have seen. One with a position that the stream has not
 * reached, or with an epoch that the store never had, was issued by this store and proves that the database was rolled
 * back.
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
