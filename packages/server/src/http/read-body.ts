/**
 * The bytes of a request body, within what the endpoint takes and what the process may hold. Fastify's own reader knows
 * the first bound only. Every byte that was counted is given back, however the request ends.
 */
import type { IncomingMessage } from 'node:http'
import { MatrixError, tooLarge, unavailable } from '../matrix-error.ts'
import type { BodyBudget } from './body-budget.ts'

export type BodyBounds = { readonly maxBytes: number; readonly budget: BodyBudget }

/** What a piece of a body takes in memory beside its bytes: a body may come in pieces of one byte. */
const PIECE_BYTES = 256

/**
 * Resolves when the body is complete.
 *
 * @throws {MatrixError} 413 over `maxBytes`, 503 while the budget is used up, 400 when the client ended it early.
 */
export function readBody(request: IncomingMessage, { maxBytes, budget }: BodyBounds): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0)
  if (announced > maxBytes) return Promise.reject(overLimit(maxBytes))
  if (!budget.hasRoom(announced)) return Promise.reject(overBudget())
  if (request.destroyed) return Promise.reject(endedEarly())
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    let held = 0
    const finish = (error?: Error): void => {
      request.off('data', onData).off('end', finish).off('error', onBreak).off('close', onBreak)
      budget.give(held)
      if (error === undefined) resolve(Buffer.concat(chunks, bytes))
      else reject(error)
    }
    const onData = (chunk: Buffer): void => {
      if (bytes + chunk.length > maxBytes) return finish(overLimit(maxBytes))
      const taken = chunk.length + PIECE_BYTES
      if (!budget.hasRoom(taken)) return finish(overBudget())
      budget.take(taken)
      held += taken
      bytes += chunk.length
      chunks.push(chunk)
    }
    const onBreak = (): void => finish(endedEarly())
    request.on('data', onData).on('end', finish).on('error', onBreak).on('close', onBreak)
  })
}

function overLimit(maxBytes: number): MatrixError {
  return tooLarge(`The body is larger than the ${maxBytes} bytes that this endpoint accepts.`)
}

function overBudget(): MatrixError {
  return unavailable('The server is receiving as many request bodies as it can hold; send this one again.')
}

function endedEarly(): MatrixError {
  return new MatrixError(400, 'M_UNKNOWN', 'The body ended before it was complete.')
}
