/**
 * Expected failures, and the named helpers that make them. Whatever else is thrown is a bug: logged once, answered 500.
 * Source of the shape: client-server API, "Standard error response".
 */
import type { Errcode, Json } from '@latchkey/protocol'

/** A failure that the caller is told about in the Matrix form. `extra` members join the error body. */
export class MatrixError extends Error {
  override readonly name = 'MatrixError'
  readonly status: number
  readonly errcode: Errcode
  readonly extra: Readonly<Record<string, Json>>

  constructor(status: number, errcode: Errcode, message: string, extra: Readonly<Record<string, Json>> = {}) {
    super(message)
    this.status = status
    this.errcode = errcode
    this.extra = extra
  }

  /** The body on the wire. */
  body(): Record<string, Json> {
    return { errcode: this.errcode, error: this.message, ...this.extra }
  }
}

export function badJson(message: string): MatrixError {
  return new MatrixError(400, 'M_BAD_JSON', message)
}

export function notJson(message: string): MatrixError {
  return new MatrixError(400, 'M_NOT_JSON', message)
}

export function missingParam(message: string): MatrixError {
  return new MatrixError(400, 'M_MISSING_PARAM', message)
}

export function invalidParam(message: string): MatrixError {
  return new MatrixError(400, 'M_INVALID_PARAM', message)
}

export function invalidSignature(message: string): MatrixError {
  return new MatrixError(400, 'M_INVALID_SIGNATURE', message)
}

export function tooLarge(message: string): MatrixError {
  return new MatrixError(413, 'M_TOO_LARGE', message)
}

export function forbidden(message: string): MatrixError {
  return new MatrixError(403, 'M_FORBIDDEN', message)
}

export function notFound(message: string): MatrixError {
  return new MatrixError(404, 'M_NOT_FOUND', message)
}

export function missingToken(): MatrixError {
  return new MatrixError(
    401,
    'M_MISSING_TOKEN',
    'Missing access token: send it as "Authorization: Bearer ...".',
  )
}

export function unknownToken(): MatrixError {
  return new MatrixError(401, 'M_UNKNOWN_TOKEN', 'The access token is not valid (any more): log in again.', {
    soft_logout: false,
  })
}

/** 429. SDKs sleep through `retryAfterMs`, so callers keep it short. */
export function limitExceeded(message: string, retryAfterMs: number): MatrixError {
  return new MatrixError(429, 'M_LIMIT_EXCEEDED', message, { retry_after_ms: Math.ceil(retryAfterMs) })
}

/** 503: the store could not commit, or more work waits than it may hold. Nothing of the request was stored. */
export function unavailable(message: string, retryAfterMs = 1000): MatrixError {
  return new MatrixError(503, 'M_UNKNOWN', message, { retry_after_ms: retryAfterMs })
}

/** Text of a client's for an error message: cut, so that an error never carries a megabyte back. */
export function quoted(text: string, maxLength = 100): string {
  return JSON.stringify(text.length > maxLength ? `${text.slice(0, maxLength)}...` : text)
}
