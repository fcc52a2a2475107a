/**
 * Responses to input that never became a request: malformed HTTP, a head that is too large, or one that takes too long.
 * Node passes the raw socket; the connection closes after the response, which has Matrix's error format and CORS. It
 * never overtakes the answers to earlier requests of the connection: it waits for them (RFC 9112, section 9.3.2).
 */
import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { MatrixError } from '../matrix-error.ts'
import { answersOn } from './connections.ts'

/** Connections whose input is unreadable. Node reports each further piece of it. */
const refused = new WeakSet<Socket>()

export function answerClientError(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  if (refused.has(socket)) return
  refused.add(socket)
  const { pending, newest } = answersOn(socket)
  // The request whose own body is malformed waits for it without end: this is its answer, unless it has one already.
  const broken = newest?.req.complete === false ? newest : undefined
  const ahead = new Set(pending.filter((answer) => answer !== broken || answer.headersSent))
  if (ahead.size === 0) return refuse(socket, error.code, broken)
  // A client that stops sending has gone.
  if (socket.readableEnded) return void socket.destroy()
  socket.once('end', () => socket.destroy())
  for (const answer of ahead) {
    answer.once('close', () => {
      ahead.delete(answer)
      if (ahead.size === 0 && socket.writable) refuse(socket, error.code, broken)
    })
  }
}

/** @param broken the answer to the request whose body is malformed; undefined if the input is not a request */
function refuse(socket: Socket, code: string | undefined, broken: ServerResponse | undefined): void {
  if (broken?.headersSent === true) socket.end()
  else socket.end(responseTo(code))
}

function responseTo(code: string | undefined): string {
  const answer = toMatrixError(code)
  const body = JSON.stringify(answer.body())
  return [
    `HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`,
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Access-Control-Allow-Origin: *',
    'Connection: close',
    '',
    body,
  ].join('\r\n')
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
