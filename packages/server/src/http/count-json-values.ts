/**
 * How many values a JSON text holds, before it is parsed: nine megabytes of `{},` are three million objects, which take
 * a second to make and to walk, and many times their text in memory. Exact for valid JSON; for anything else the parser
 * has the last word.
 */

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c]
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [0x7b, 0x7d, 0x5b, 0x5d]
/** Space, and the control characters that JSON counts as white space, are the bytes up to this one. */
const SPACE = 0x20

/** Whether there are more than `max` values: objects, arrays, strings, numbers, literals; names of members not. */
export function hasMoreJsonValues(bytes: Uint8Array, max: number): boolean {
  // No value is shorter than a byte.
  return bytes.length > max && countJsonValues(bytes) > max
}

/** A value is the first of its container or follows a comma; the root is neither. */
export function countJsonValues(bytes: Uint8Array): number {
  let count = 1
  let first = false
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] ?? 0
    if (byte <= SPACE) continue
    if (byte === COMMA) count++
    else if (first && byte !== CLOSE_OBJECT && byte !== CLOSE_ARRAY) count++
    first = byte === OPEN_OBJECT || byte === OPEN_ARRAY
    if (byte === QUOTE) i = endOfString(bytes, i)
  }
  return count
}

/** The place of the quotation mark that ends the string. */
function endOfString(bytes: Uint8Array, start: number): number {
  let i = start + 1
  for (; i < bytes.length && bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i++
  return i
}
