/**
 * Reads a request body within the endpoint's limit and the budget of the process. Fastify's own reader knows only the
 * first limit. Every counted byte is released, however the request ends.
 */
import type { IncomingMessage } from 'node:http'
import { MatrixError, tooLarge, unavailable } from '../matrix-error.ts'
import type { BodyBudget } from './body-budget.ts'

export type BodyBounds = { readonly maxBytes: number; readonly budget: BodyBudget }

/** Memory overhead per received chunk; a body may arrive one byte at a time. */
const CHUNK_OVERHEAD_BYTES = 256

/**
 * Resolves when the body is complete.
 *
 * @throws {MatrixError} 413 over `maxBytes`, 503 while the budget is used up, 400 if the client aborted the request.
 */
export function readBody(request: IncomingMessage, { maxBytes, budget }: BodyBounds): Promise<Buffer> {
  const announced = Number(request.headers['content-length'] ?? 0)
  if (announced > maxBytes) return Promise.reject(overLimit(maxBytes))
  if (!budget.fits(announced)) return Promise.reject(overBudget())
  if (request.destroyed) return Promise.reject(endedEarly())
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    let held = 0
    const finish = (error?: Error): void => {
      request.off('data', onData).off('end', finish).off('error', onBreak).off('close', onBreak)
      budget.release(held)
      if (error === undefined) resolve(Buffer.concat(chunks, bytes))
      else reject(error)
    }
    const onData = (chunk: Buffer): void => {
      if (bytes + chunk.length > maxBytes) return finish(overLimit(maxBytes))
      const taken = chunk.length + CHUNK_OVERHEAD_BYTES
      if (!budget.fits(taken)) return finish(overBudget())
      budget.take(taken)
      held += taken
      bytes += chunk.length
      chunks.push(chunk)
    }
    const onBreak = (): void => finish(endedEarly())
    request.on('data', onData).on('end', finish).on('error', onBreak).on('close', onBreak)
  })
}

/** Bytes of the body that the client has announced and may send; 0 for a body in chunks. */
export function announcedBytes({ headers }: IncomingMessage, { maxBytes }: BodyBounds): number {
  return Math.min(Number(headers['content-length'] ?? 0), maxBytes)
}

function overLimit(maxBytes: number): MatrixError {
  return tooLarge(`The body is larger than the ${maxBytes} bytes that this endpoint accepts.`)
}

function overBudget(): MatrixError {
  return unavailable('Request body memory is full; try again later.')
}

function endedEarly(): MatrixError {
  return new MatrixError(400, 'M_UNKNOWN', 'The request body is incomplete: the connection closed early.')
}
