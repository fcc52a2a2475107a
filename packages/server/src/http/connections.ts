/**
 * The connections of clients: the answers that each still owes, and the end of a connection on which nothing moves.
 * Node's own time limit closes every connection without traffic, that of a waiting sync included; here it closes only
 * idle ones and those whose client does not take its answer. Issue 11, C3.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { limitExceeded, type MatrixError } from '../matrix-error.ts'

type Answers = {
  /** The answers that are not complete, in the order of their requests. */
  readonly pending: ServerResponse[]
  /** The answer to the newest request, unless both are complete. */
  newest: ServerResponse | undefined
}

const answersBySocket = new WeakMap<Socket, Answers>()

export function answersOn(socket: Socket): Readonly<Answers> {
  return answersBySocket.get(socket) ?? { pending: [], newest: undefined }
}

/**
 * Starts to note the pending answers of every connection.
 *
 * @param timeoutMs time without progress after which the answer of a client is cut off
 */
export function watchConnections(server: Server, timeoutMs: number): void {
  // Before the application sees the request: it may answer within the call.
  server.prependListener('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const answers = answersBySocket.get(socket)
    if (answers === undefined) answersBySocket.set(socket, { pending: [response], newest: response })
    else {
      answers.pending.push(response)
      answers.newest = response
    }
    response.on('close', forget)
  })
  // Node restarts the time at each write, and while the kernel takes bytes of a large one.
  server.setTimeout(timeoutMs)
  server.on('timeout', (socket: Socket) => {
    // The first request of a connection has a time limit of its own.
    const isIdle = answersBySocket.get(socket)?.pending.length === 0
    if (isStalled(socket) || isIdle) socket.destroy()
  })
}

/** Forgets an answer that is complete. Thousands of idle connections would keep their last request in memory. */
function forget(this: ServerResponse): void {
  const answers = answersBySocket.get(this.req.socket)
  if (answers === undefined) return
  answers.pending.splice(answers.pending.indexOf(this), 1)
  if (answers.newest === this && this.req.complete) answers.newest = undefined
}

/** Whether bytes wait for the kernel to take them. */
export function isStalled(socket: Socket): boolean {
  return socket.writableLength > 0
}

/** Requests that a client may send on one connection before it has read the answer to the first. */
const MAX_PENDING = 32

/**
 * Refuses requests of a client that sends many and reads no answers. Node stops reading them once the answers that wait
 * in line exceed its buffer; requests that wait themselves, such as syncs, have no answer yet.
 */
export function refusePipelined({ raw }: FastifyRequest, reply: FastifyReply): MatrixError | undefined {
  if (answersOn(raw.socket).pending.length <= MAX_PENDING) return undefined
  reply.header('connection', 'close')
  return limitExceeded(
    `This connection has ${MAX_PENDING} unanswered requests; read their answers before the next request.`,
    1000,
  )
}
