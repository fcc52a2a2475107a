/**
 * Sync tokens: `s1.EPOCH.POSITION.MAC`, and within a sync in pages `s2.EPOCH.POSITION.LISTS.MAC`. Versioned,
 * authenticated and bound to the device, so that a token can be evidence for the rollback fence (key-pool.md) and no
 * client can confirm messages of another device.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Position, Session } from '../session.ts'

export type SyncToken = {
  readonly epoch: string
  /** Messages and account data up to here were in earlier answers. */
  readonly position: Position
  /** Device lists up to here were in earlier answers; by default up to `position`. Beyond it after a page (page.ts). */
  readonly lists?: Position
}

/** The end of the stream, and the end of the token's epoch if it is a former one of this store. */
export type StreamEnd = Pick<SyncToken, 'epoch' | 'position'> & { readonly formerEnd: Position | undefined }

const [VERSION, PAGE_VERSION] = ['s1', 's2']
const MAC_BYTES = 16

export function encodeToken(secret: string, session: Pick<Session, 'deviceRef'>, token: SyncToken): string {
  const content = contentOf(token)
  return `${content}.${mac(secret, session, content).toString('base64url')}`
}

/** The content of a token made by `encodeToken` for the same device; undefined for anything else. */
export function decodeToken(
  secret: string,
  session: Pick<Session, 'deviceRef'>,
  text: string,
): SyncToken | undefined {
  const parts = text.split('.')
  const signature = parts.pop() ?? ''
  const [, epoch, position, lists] = parts
  if (epoch === undefined || !isPosition(position) || !(lists === undefined || isPosition(lists)))
    return undefined
  const token = { epoch, position: Number(position), ...(lists !== undefined && { lists: Number(lists) }) }
  const content = contentOf(token)
  if (content !== parts.join('.')) return undefined
  const given = Buffer.from(signature, 'base64url')
  return given.length === MAC_BYTES && timingSafeEqual(given, mac(secret, session, content))
    ? token
    : undefined
}

/** The newest position that a client has seen. */
export function newestSeen({ position, lists = position }: SyncToken): Position {
  return Math.max(position, lists)
}

/** How a reading continues from a token. */
export type Continuation = {
  /** Undefined: from the beginning. */
  readonly since: Position | undefined
  /** Where the device lists continue; undefined: from the beginning. */
  readonly listsSince: Position | undefined
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
  const { epoch, position, lists = position } = token
  const seen = newestSeen(token)
  if (epoch === end.epoch) {
    if (seen <= end.position) return { since: position, listsSince: lists, newEpoch: false, everyone: false }
    return {
      ...BEGINNING,
      proof: `a client has a sync token of position ${seen}, the end is ${end.position}`,
    }
  }
  const { formerEnd } = end
  if (formerEnd === undefined)
    return { ...BEGINNING, proof: `a client has a sync token of the unknown epoch ${epoch}` }
  return {
    since: Math.min(position, formerEnd),
    listsSince: Math.min(lists, formerEnd),
    newEpoch: true,
    everyone: seen > formerEnd,
  }
}

const BEGINNING: Continuation = { since: undefined, listsSince: undefined, newEpoch: false, everyone: false }

function isPosition(digits: string | undefined): digits is string {
  return digits !== undefined && /^\d{1,16}$/.test(digits)
}

/** The token without its signature. */
function contentOf({ epoch, position, lists = position }: SyncToken): string {
  return lists === position
    ? `${VERSION}.${epoch}.${position}`
    : `${PAGE_VERSION}.${epoch}.${position}.${lists}`
}

function mac(secret: string, { deviceRef }: Pick<Session, 'deviceRef'>, content: string): Buffer {
  return createHmac('sha256', secret).update(`${content}.${deviceRef}`).digest().subarray(0, MAC_BYTES)
}
