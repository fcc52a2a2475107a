/**
 * The identity of a request in the logs. Its ID is random and ours: a client's own `X-Request-Id` header is ignored,
 * because a client could choose that of another request.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Origin } from '../observe/security-log.ts'
import { clientAddress } from './client-address.ts'

export const REQUEST_ID_HEADER = 'x-request-id'

export function newRequestId(): string {
  return randomUUID()
}

export function originOf(request: FastifyRequest): Origin {
  const { session } = request
  return {
    address: clientAddress(request),
    requestId: request.id,
    ...(session && { userId: session.userId, deviceId: session.deviceId }),
  }
}
