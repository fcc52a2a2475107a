/**
 * Endpoints with user-interactive authentication. Before the body is validated, the session that it names is looked up:
 * a finished one gives its answer again, and a body with only `auth` is replaced by the one that the session remembers.
 */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import {
  AuthenticationChallenge,
  type AuthRequest,
  unknownAuthSession,
} from '../accounts/interactive-auth.ts'
import { AuthSessionEnded } from '../accounts/port.ts'
import type { Context } from '../context.ts'
import { widestNetworkOf } from '../lib/client-network.ts'
import { MatrixError } from '../matrix-error.ts'
import { clientAddress } from './client-address.ts'
import type { Endpoint, Result } from './endpoint.ts'

export function authRequest(
  { method, path, body: schema }: Endpoint,
  request: FastifyRequest,
  body: JsonObject,
): AuthRequest {
  const { session } = request
  return {
    body,
    hasMembers: Type.IsObject(schema) && Object.keys(schema.properties).some((name) => name !== 'auth'),
    operation: JSON.stringify([method, path, request.params, session?.userId ?? null]),
    ...(session && { session }),
    network: widestNetworkOf(clientAddress(request)),
  }
}

type PreValidation = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>

export function resumeInteraction({ interactiveAuth }: Context, endpoint: Endpoint): PreValidation {
  return async (request, reply) => {
    const body: unknown = request.body === undefined ? {} : request.body
    request.body = body
    // Anything else is refused by the schema.
    if (!isJsonObject(body)) return undefined
    const resumed = await interactiveAuth.resume(authRequest(endpoint, request, body))
    if ('answer' in resumed) return reply.send(resumed.answer)
    request.body = resumed.body
    return undefined
  }
}

/**
 * Runs a handler. A request whose session was finished by a concurrent one gets the answer of that one, also when it
 * was refused for what that one has done: the name is taken, the password is another one.
 */
export async function interact(
  { interactiveAuth }: Context,
  endpoint: Endpoint,
  request: FastifyRequest,
  handle: () => Promise<Result>,
): Promise<Result> {
  try {
    return await handle()
  } catch (error) {
    const hasEnded = error instanceof AuthSessionEnded
    if (!hasEnded && !mayBeRepetition(error)) throw error
    const resumed = await interactiveAuth.resume(authRequest(endpoint, request, request.body as JsonObject))
    if ('answer' in resumed) return resumed.answer
    throw hasEnded ? unknownAuthSession() : error
  }
}

/** Nothing is answered to a token that has ended. */
function mayBeRepetition(error: unknown): boolean {
  if (error instanceof AuthenticationChallenge) return true
  return error instanceof MatrixError && error.status <= 403 && error.errcode !== 'M_UNKNOWN_TOKEN'
}
