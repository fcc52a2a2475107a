/**
 * String order by Unicode code point, which Matrix requires for canonical JSON and Latchkey uses for the key IDs of an
 * upload. JavaScript's `<` compares UTF-16 units, which puts U+1F600 before U+FFFD.
 */

/** Compares two strings by code point: negative, zero or positive, for `Array#sort`. */
export function compareCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length)
  for (let i = 0; i < shorter; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return rank(x) - rank(y)
  }
  return a.length - b.length
}

/** Surrogates encode code points above U+FFFF, so they rank above every other unit. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit
}
