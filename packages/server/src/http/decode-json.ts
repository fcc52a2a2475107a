/**
 * Request bodies: bytes to JSON, with everything refused that no Matrix request may hold. Fastify's own parser accepts
 * invalid UTF-8 and answers 415 to odd content types; clients of Matrix are not that careful with either.
 */
import { isUtf8 } from 'node:buffer'
import { badJson, notJson, tooLarge } from '../matrix-error.ts'
import { hasMoreJsonValues } from './count-json-values.ts'

export type JsonRules = {
  readonly maxDepth: number
  readonly maxValues: number
  /** Numbers that canonical JSON cannot have as they are written (`1.0`, `1e3`, `0.5`) become NaN, to be refused. */
  readonly exactNumbers: boolean
}

/**
 * Decodes a request body. An empty one counts as `{}`.
 *
 * @throws {MatrixError} 400 M_NOT_JSON or M_BAD_JSON: not UTF-8, not JSON, nested too deep, U+0000 or a lone surrogate;
 *   413 for more values than the rules have it.
 */
export function decodeJson(bytes: Buffer, { maxDepth, maxValues, exactNumbers }: JsonRules): unknown {
  if (bytes.length === 0) return {}
  if (!isUtf8(bytes)) throw notJson('The body is not UTF-8.')
  if (hasMoreJsonValues(bytes, maxValues)) {
    throw tooLarge(
      `The body holds more than ${maxValues} JSON values, which is the most this server accepts.`,
    )
  }
  const text = bytes.toString()
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw notJson('The body is not JSON.')
  }
  // Escapes are the only way to U+0000 and lone surrogates: bare control characters are not JSON, surrogates not UTF-8.
  const mayHoldBadText = text.includes('\\u')
  requireDecent(value, maxDepth, mayHoldBadText)
  // After the check of the depth: a parse with a reviver is recursive.
  return exactNumbers && MAY_HOLD_INEXACT_NUMBER.test(text) ? parseWithSource(text, markInexact) : value
}

/** Seldom true, and seldom wrong: a key ID such as `1e2` looks like it. */
const MAY_HOLD_INEXACT_NUMBER = /[:,[]\s*-?\d+[.eE]/
const INTEGER = /^-?\d+$/

/** JSON.parse with the source text of a value, which TypeScript's library does not have yet. */
const parseWithSource = JSON.parse as (
  text: string,
  reviver: (name: string, value: unknown, context: { readonly source?: string }) => unknown,
) => unknown

function markInexact(_name: string, value: unknown, { source = '' }: { readonly source?: string }): unknown {
  return typeof value === 'number' && !INTEGER.test(source) ? Number.NaN : value
}

function requireDecent(value: unknown, depthLeft: number, checkText: boolean): void {
  if (typeof value === 'string') {
    if (checkText) requireDecentText(value)
    return
  }
  // 1e400 parses to infinity, and would be handed on as null.
  if (value === Number.POSITIVE_INFINITY || value === Number.NEGATIVE_INFINITY) {
    throw badJson('The body holds a number too large for JSON to carry.')
  }
  if (typeof value !== 'object' || value === null) return
  if (depthLeft === 0) throw badJson('The body is nested deeper than this server accepts.')
  if (Array.isArray(value)) {
    for (const item of value) requireDecent(item, depthLeft - 1, checkText)
    return
  }
  for (const [key, member] of Object.entries(value)) {
    if (checkText) requireDecentText(key)
    requireDecent(member, depthLeft - 1, checkText)
  }
}

/** No store holds U+0000 in text, and a lone surrogate does not survive UTF-8. */
function requireDecentText(text: string): void {
  if (isDecentText(text)) return
  throw badJson(
    'The body holds a string with U+0000 or a lone surrogate, which Matrix identifiers and keys cannot have.',
  )
}

export function isDecentText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}
