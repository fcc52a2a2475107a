/**
 * The connections of clients: the answers that each still owes, and the end of a connection on which nothing moves.
 * Node's own time limit closes every connection without traffic, that of a waiting sync included; here it closes only
 * idle ones and those whose client does not take its answer. Issue 11, C3.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { limitExceeded, type MatrixError } from '../matrix-error.ts'

/** A request, and the answer that is pending. */
export type Exchange = { readonly request: IncomingMessage; readonly response: ServerResponse }

type Exchanges = {
  /** The requests that are not answered completely, in their order. */
  readonly pending: Set<Exchange>
  /** The newest request, answered or not. */
  newest: Exchange | undefined
}

const exchangesBySocket = new WeakMap<Socket, Exchanges>()

export function exchangesOn(socket: Socket): Readonly<Exchanges> {
  return exchangesBySocket.get(socket) ?? { pending: new Set(), newest: undefined }
}

/**
 * Starts to note the pending answers of every connection.
 *
 * @param timeoutMs time without progress after which the answer of a client is cut off
 */
export function watchConnections(server: Server, timeoutMs: number): void {
  // Before the application sees the request: it may answer within the call.
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    const exchanges = exchangesBySocket.get(socket) ?? { pending: new Set(), newest: undefined }
    exchangesBySocket.set(socket, exchanges)
    const exchange: Exchange = { request, response }
    exchanges.newest = exchange
    exchanges.pending.add(exchange)
    response.once('close', () => {
      exchanges.pending.delete(exchange)
      // Thousands of idle connections would keep their last request in memory.
      if (exchanges.newest === exchange && request.complete) exchanges.newest = undefined
    })
  })
  // Node restarts the time at each write, and while the kernel takes bytes of a large one.
  server.setTimeout(timeoutMs)
  server.on('timeout', (socket: Socket) => {
    if (isStalled(socket) || exchangesOn(socket).pending.size === 0) socket.destroy()
  })
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
  if (exchangesOn(raw.socket).pending.size <= MAX_PENDING) return undefined
  reply.header('connection', 'close')
  return limitExceeded(
    `This connection has ${MAX_PENDING} unanswered requests; read their answers before the next request.`,
    1000,
  )
}
