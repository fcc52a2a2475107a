/**
 * Ordering of strings by Unicode code point, as Matrix requires for canonical JSON and as Latchkey
 * orders key IDs within one upload. JavaScript's own `<` compares UTF-16 units, which puts U+1F600 before U+FFFD.
 */

/** Compares two strings by code point: negative, zero or positive, as `Array#sort` wants it. */
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
