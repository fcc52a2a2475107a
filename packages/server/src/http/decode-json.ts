/**
 * Decodes request bodies from bytes to JSON, and refuses content that a Matrix request cannot have. Fastify's own
 * parser accepts invalid UTF-8 and answers 415 to unusual content types, which some Matrix clients send.
 */
import { isUtf8 } from 'node:buffer'
import { nextTurn } from '../lib/turns.ts'
import { badJson, notJson, tooLarge } from '../matrix-error.ts'
import { countJsonValues } from './count-json-values.ts'
import { markInexactNumbers } from './inexact-numbers.ts'

export type JsonRules = {
  readonly maxDepth: number
  readonly maxValues: number
  /** The names that a body may have, in words: part of the refusal of one with too many values. */
  readonly accepted: string | undefined
  /** Numbers not in canonical form (`1.0`, `1e3`, `0.5`) become Infinity, so that decoders can refuse them. */
  readonly exactNumbers: boolean
  /** Called with the number of values before the text is parsed. What it throws is thrown. */
  readonly onCounted?: (values: number) => void
}

/** Smaller bodies are decoded in one turn of the event loop, in less than 1 ms. */
const SMALL_BYTES = 64 * 1024

/**
 * Decodes a request body. An empty body is `{}`. A large one is counted, parsed and checked in a turn each (issue 11,
 * C1), and the caller continues in another.
 *
 * @throws {MatrixError} 400 M_NOT_JSON or M_BAD_JSON: not UTF-8, not JSON, nested too deep, U+0000 or a lone surrogate;
 *   413 for more than `maxValues` values.
 */
export async function decodeJson(bytes: Buffer, rules: JsonRules): Promise<unknown> {
  const { maxDepth, maxValues, accepted, exactNumbers, onCounted } = rules
  if (bytes.length === 0) return {}
  if (!isUtf8(bytes)) throw notJson('The body is not UTF-8.')
  const values = countJsonValues(bytes)
  if (values > maxValues) {
    const names = accepted === undefined ? '' : ` At most ${accepted} are accepted at once.`
    throw tooLarge(`The body has more than ${maxValues} JSON values; send less in one request.${names}`)
  }
  onCounted?.(values)
  const pause = async (): Promise<void> => {
    if (bytes.length > SMALL_BYTES) await nextTurn()
  }
  await pause()
  const text = bytes.toString()
  const value = parse(text)
  await pause()
  // U+0000 and lone surrogates can only come from escapes: raw ones are invalid in JSON and in UTF-8 respectively.
  const mayHaveMalformedText = text.includes('\\u')
  assertWellFormed(value, maxDepth, mayHaveMalformedText)
  await pause()
  const marked = exactNumbers ? markInexactNumbers(bytes) : undefined
  return marked === undefined ? value : parse(marked.toString())
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw notJson('The body is not valid JSON.')
  }
}

function assertWellFormed(value: unknown, depthLeft: number, checkText: boolean): void {
  if (typeof value === 'string') {
    if (checkText) assertWellFormedText(value)
    return
  }
  // 1e400 parses to Infinity, which JSON.stringify would write as null.
  if (value === Number.POSITIVE_INFINITY || value === Number.NEGATIVE_INFINITY) {
    throw badJson('The body has a number outside the range of a 64-bit float.')
  }
  if (typeof value !== 'object' || value === null) return
  if (depthLeft === 0) throw badJson('The body is nested deeper than this server accepts.')
  if (Array.isArray(value)) {
    for (const item of value) assertWellFormed(item, depthLeft - 1, checkText)
    return
  }
  for (const [key, member] of Object.entries(value)) {
    if (checkText) assertWellFormedText(key)
    assertWellFormed(member, depthLeft - 1, checkText)
  }
}

/** PostgreSQL text cannot hold U+0000, and UTF-8 cannot encode a lone surrogate. */
function assertWellFormedText(text: string): void {
  if (isWellFormedText(text)) return
  throw badJson(
    'The body has a string with U+0000 or a lone surrogate, which Matrix identifiers and keys cannot contain.',
  )
}

export function isWellFormedText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}
