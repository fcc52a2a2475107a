/**
 * Sync tokens: `s1.EPOCH.POSITION.MAC`. Versioned, authenticated and bound to the device, so that a token can bear
 * witness (the rollback fence reads epoch and position out of it) and nobody can confirm messages of another device.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { Position, Session } from '../session.ts'

export type SyncToken = { readonly epoch: string; readonly position: Position }

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
  if (digits === undefined || !/^\d{1,15}$/.test(digits)) return undefined
  const token = { epoch, position: Number(digits) }
  const given = Buffer.from(signature, 'base64url')
  return given.length === MAC_BYTES && timingSafeEqual(given, mac(secret, session, token)) ? token : undefined
}

/**
 * The position that a token can be continued from: of this epoch, and not of a future that the store has not seen.
 * Undefined when it can only be answered from the beginning. `end` is where the stream ends at that moment.
 */
export function continuesFrom(token: SyncToken | undefined, end: SyncToken): Position | undefined {
  return token?.epoch === end.epoch && token.position <= end.position ? token.position : undefined
}

function mac(
  secret: string,
  { deviceRef }: Pick<Session, 'deviceRef'>,
  { epoch, position }: SyncToken,
): Buffer {
  const text = `${VERSION}.${epoch}.${position}.${deviceRef}`
  return createHmac('sha256', secret).update(text).digest().subarray(0, MAC_BYTES)
}
