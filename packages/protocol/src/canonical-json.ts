/**
 * Canonical JSON (Matrix specification, appendices, "Canonical JSON"): keys sorted by code point, no white space,
 * integers within +-(2^53 - 1) only, UTF-8 unescaped. The npm packages for it sort by UTF-16 unit and accept floats.
 */
import { compareCodePoints } from './code-points.ts'

/** Any result of JSON.parse. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/** A value that canonical JSON cannot represent: a float, an out-of-range number, or nesting beyond the limit. */
export class CanonicalJsonError extends Error {
  override readonly name = 'CanonicalJsonError'
}

const MAX_DEPTH = 128

/**
 * The canonical text of a value.
 *
 * @throws {CanonicalJsonError} for floats, integers out of range, and nesting deeper than 128.
 * @example canonicalJson({ b: 1, a: [] }) // '{"a":[],"b":1}'
 */
export function canonicalJson(value: Json): string {
  return write(value, 0)
}

function write(value: Json, depth: number): string {
  if (depth > MAX_DEPTH) throw new CanonicalJsonError(`nesting is deeper than ${MAX_DEPTH}`)
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value)) {
      throw new CanonicalJsonError(`expected an integer within +-(2^53 - 1), got ${value}`)
    }
    return value === 0 ? '0' : String(value)
  }
  if (isArray(value)) return `[${value.map((item) => write(item, depth + 1)).join(',')}]`
  const members = Object.keys(value)
    .sort(compareCodePoints)
    .map((key) => `${JSON.stringify(key)}:${write(value[key] ?? null, depth + 1)}`)
  return `{${members.join(',')}}`
}

/** Array.isArray does not narrow readonly arrays. */
function isArray(value: Json): value is readonly Json[] {
  return Array.isArray(value)
}
