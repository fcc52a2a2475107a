/**
 * Request bodies: bytes to JSON, with everything refused that no Matrix request may hold. Fastify's own parser accepts
 * invalid UTF-8 and answers 415 to odd content types; clients of Matrix are not that careful with either.
 */
import { isUtf8 } from 'node:buffer'
import { badJson, notJson } from '../matrix-error.ts'

/**
 * Decodes a request body. An empty one counts as `{}`.
 *
 * @throws {MatrixError} 400 M_NOT_JSON or M_BAD_JSON: not UTF-8, not JSON, nested too deep, U+0000 or a lone surrogate.
 */
export function decodeJson(bytes: Buffer, maxDepth: number): unknown {
  if (bytes.length === 0) return {}
  if (!isUtf8(bytes)) throw notJson('The body is not UTF-8.')
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
  return value
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
export function requireDecentText(text: string): void {
  if (text.includes('\0') || !text.isWellFormed()) {
    throw badJson(
      'The body holds a string with U+0000 or a lone surrogate, which Matrix identifiers and keys cannot have.',
    )
  }
}
