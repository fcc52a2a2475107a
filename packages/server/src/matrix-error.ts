/**
 * Expected failures, and named helpers that create them. Any other error is a bug: logged once, answered with 500.
 * Format: client-server API, "Standard error response".
 */
import type { Errcode, Json } from '@latchkey/protocol'

/** A failure that is reported to the client as a Matrix error. `extra` members are added to the error body. */
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
  return new MatrixError(
    401,
    'M_UNKNOWN_TOKEN',
    'The access token is unknown or no longer valid: log in again.',
    {
      soft_logout: false,
    },
  )
}

/** The session goes on: the client refreshes its token, or logs in again on the same device, and keeps its keys. */
export function expiredToken(): MatrixError {
  return new MatrixError(
    401,
    'M_UNKNOWN_TOKEN',
    'The access token has expired: refresh it, or log in again.',
    {
      soft_logout: true,
    },
  )
}

/** 429. SDKs sleep for `retryAfterMs`, so callers keep it short. */
export function limitExceeded(message: string, retryAfterMs: number): MatrixError {
  return new MatrixError(429, 'M_LIMIT_EXCEEDED', message, { retry_after_ms: Math.ceil(retryAfterMs) })
}

/** 503: the store could not commit, or a queue is full. Nothing of the request was stored. */
export function unavailable(message: string, retryAfterMs = 1000): MatrixError {
  return new MatrixError(503, 'M_UNKNOWN', message, { retry_after_ms: retryAfterMs })
}

/** 503: the server accepts no further requests. */
export function shuttingDown(): MatrixError {
  return unavailable('The server is shutting down.')
}

/** Quotes client-supplied text for an error message, truncated to `maxLength`. */
export function quoted(text: string, maxLength = 100): string {
  return JSON.stringify(text.length > maxLength ? `${text.slice(0, maxLength)}...` : text)
}
