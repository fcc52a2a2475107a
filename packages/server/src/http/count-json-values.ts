/**
 * Counts the values of a JSON text before it is parsed: nine megabytes of `{},` are three million objects, which take a
 * second to create and visit, and many times the memory of the text. Exact for valid JSON; the parser refuses the rest.
 */

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c]
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [0x7b, 0x7d, 0x5b, 0x5d]
/** JSON's white space (space, tab, line feed, carriage return) is at or below this byte. */
const SPACE = 0x20

/**
 * Objects, arrays, strings, numbers and literals; not member names. Each one except the root is the first in its
 * container or follows a comma.
 */
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

/** Index of the quotation mark that ends the string. */
export function endOfString(bytes: Uint8Array, start: number): number {
  let i = start + 1
  for (; i < bytes.length && bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i++
  return i
}
