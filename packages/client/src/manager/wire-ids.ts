/**
 * Key IDs on the wire. They are independent of the Olm library, whose counter returns to old values with a restored
 * backup and then names a second key like the first (vodozemac#382, element-ios#3721). IDs are not signed, so any text
 * is valid.
 *
 * Format: fixed width in base32hex, so that code point order equals numeric order: 10 characters of time, 8 random
 * characters per batch, 2 of index. IDs increase from batch to batch even if the clock is moved back, and a restored
 * copy of the store draws different ones.
 */
import { type KeyId, type KeyName, keyName, SIGNED_CURVE25519 } from '@latchkey/protocol'

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUV'
const TIME_WIDTH = 10
const RANDOM_WIDTH = 8
const INDEX_WIDTH = 2

/** Source of unpredictable random bytes. */
export type Random = (count: number) => Uint8Array

export const cryptoRandom: Random = (count) => crypto.getRandomValues(new Uint8Array(count))

/** The timestamp of the next batch's IDs: later than all before. */
export function nextIdTime(lastIdTime: number, now: number): number {
  return Math.max(now, lastIdTime + 1)
}

/** `count` new names that sort in this order. */
export function newKeyNames(idTime: number, random: Random, count: number): KeyName[] {
  if (count > DIGITS.length ** INDEX_WIDTH) throw new Error(`${count} keys in one batch are too many`)
  const drawn = Array.from(random(RANDOM_WIDTH), (byte) => DIGITS.charAt(byte & 31)).join('')
  const prefix = digits(idTime, TIME_WIDTH) + drawn
  return Array.from({ length: count }, (_, index) =>
    keyName(SIGNED_CURVE25519, (prefix + digits(index, INDEX_WIDTH)) as KeyId),
  )
}

/** A request ID: unpredictable and unique. */
export function newRequestId(random: Random): string {
  return Array.from(random(20), (byte) => DIGITS.charAt(byte & 31)).join('')
}

function digits(value: number, width: number): string {
  let text = ''
  for (let rest = value; text.length < width; rest = Math.floor(rest / DIGITS.length)) {
    text = DIGITS.charAt(rest % DIGITS.length) + text
  }
  return text
}
