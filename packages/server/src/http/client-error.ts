/**
 * Responses to input that never became a request: malformed HTTP, a head that is too large, or one that takes too long.
 * Node passes the raw socket; the connection closes after the response, which has Matrix's error format and CORS.
 */
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { MatrixError } from '../matrix-error.ts'

export function answerClientError(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const answer = toMatrixError(error.code)
  const body = JSON.stringify(answer.body())
  socket.end(
    [
      `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`,
      'Content-Type: application/json; charset=utf-8',
      `Content-Length: ${Buffer.byteLength(body)}`,
      'Access-Control-Allow-Origin: *',
      'Connection: close',
      '',
      body,
    ].join('\r\n'),
  )
}

function toMatrixError(code: string | undefined): MatrixError {
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    return new MatrixError(408, 'M_UNKNOWN', 'The request took too long to arrive.')
  }
  if (code === 'HPE_HEADER_OVERFLOW') {
    const message = 'The URL and headers of the request are larger than this server accepts.'
    return new MatrixError(431, 'M_TOO_LARGE', message)
  }
  return new MatrixError(400, 'M_UNKNOWN', 'Malformed HTTP request.')
}
