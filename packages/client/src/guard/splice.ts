/**
 * Changes one member of a JSON text and keeps every other byte: an answer may contain what a parser would lose (large
 * numbers, duplicate members, the order of keys).
 */

/** A range of a text: from `start` to `end`, exclusive. */
export type Range = { readonly start: number; readonly end: number }

/**
 * The text with the member at `path` set to `value` (JSON text). A missing member is inserted first in its object;
 * undefined when that object is missing.
 */
export function spliceMember(text: string, path: readonly string[], value: string): string | undefined {
  const name = path.at(-1)
  if (name === undefined) return undefined
  let object: Range | undefined = { start: skipSpace(text, 0), end: text.length }
  for (const step of path.slice(0, -1)) {
    object = object && findMember(text, object.start, step)
    if (object === undefined) return undefined
  }
  if (text[object.start] !== '{') return undefined
  const found = findMember(text, object.start, name)
  if (found !== undefined) return text.slice(0, found.start) + value + text.slice(found.end)
  const inside = object.start + 1
  const comma = text[skipSpace(text, inside)] === '}' ? '' : ','
  return `${text.slice(0, inside)}${JSON.stringify(name)}:${value}${comma}${text.slice(inside)}`
}

/**
 * The value of a member of the object at `start`. Of duplicate members it is the last, as in JSON.parse. The text must
 * be valid JSON.
 */
export function findMember(text: string, start: number, name: string): Range | undefined {
  if (text[start] !== '{') return undefined
  let found: Range | undefined
  let at = skipSpace(text, start + 1)
  while (text[at] === '"') {
    const keyEnd = endOfString(text, at)
    const key: unknown = JSON.parse(text.slice(at, keyEnd))
    const valueStart = skipSpace(text, skipSpace(text, keyEnd) + 1)
    const valueEnd = endOfValue(text, valueStart)
    if (key === name) found = { start: valueStart, end: valueEnd }
    at = skipSpace(text, valueEnd)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
  return found
}

function endOfValue(text: string, start: number): number {
  const first = text[start]
  if (first === '"') return endOfString(text, start)
  if (first !== '{' && first !== '[') return endOfScalar(text, start)
  let depth = 0
  for (let at = start; at < text.length; ) {
    const character = text[at]
    if (character === '"') {
      at = endOfString(text, at)
      continue
    }
    if (character === '{' || character === '[') depth++
    else if ((character === '}' || character === ']') && --depth === 0) return at + 1
    at++
  }
  return text.length
}

/** The index after a string's closing quote: the first quote preceded by an even number of backslashes. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    at = text.indexOf('"', at)
    if (at === -1) return text.length
    let before = at
    while (text[before - 1] === '\\') before--
    if ((at - before) % 2 === 0) return at + 1
  }
}

function endOfScalar(text: string, start: number): number {
  let at = start
  while (at < text.length && !',}] \t\n\r'.includes(text.charAt(at))) at++
  return at
}

function skipSpace(text: string, start: number): number {
  let at = start
  while (' \t\n\r'.includes(text.charAt(at)) && at < text.length) at++
  return at
}
