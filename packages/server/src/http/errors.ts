/**
 * Maps failures to responses: MatrixError as is, a user-interactive authentication challenge as 401, Fastify's own
 * refusals as Matrix errors, everything else as a logged 500.
 */
import type { FastifyError, FastifyReply, FastifyRequest, FastifySchemaValidationError } from 'fastify'
import { AuthenticationChallenge } from '../accounts/interactive-auth.ts'
import type { SecurityLog } from '../observe/security-log.ts'
import { badJson, MatrixError, missingParam, quoted, tooLarge } from '../matrix-error.ts'
import { originOf } from './request-origin.ts'

type ErrorSender = (error: unknown, request: FastifyRequest, reply: FastifyReply) => FastifyReply

/** Every refusal passes here, so that no limit is missing from the security log. */
export function errorSender(securityLog: SecurityLog): ErrorSender {
  return (error, request, reply) => {
    const route = request.routeOptions.url ?? ''
    if (error instanceof AuthenticationChallenge) {
      const isRefused = error.body['errcode'] === 'M_FORBIDDEN'
      if (isRefused) securityLog.note('interactive_auth_failed', originOf(request), { route })
      return reply.code(401).send(error.body)
    }
    const known = toMatrixError(error)
    if (known?.status === 429)
      securityLog.note('request_limited', originOf(request), { route, reason: known.message })
    return sendError(error, known, request, reply)
  }
}

function sendError(
  error: unknown,
  known: MatrixError | undefined,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  if (known === undefined) {
    request.log.error(
      { err: error, method: request.method, route: request.routeOptions.url },
      'unhandled error',
    )
    return reply
      .code(500)
      .send({ errcode: 'M_UNKNOWN', error: 'Internal server error. Details are in the server log.' })
  }
  if (known.status === 503) request.log.error({ err: known.cause ?? known }, known.message)
  const retryAfterMs = known.extra['retry_after_ms']
  if (typeof retryAfterMs === 'number') reply.header('retry-after', String(Math.ceil(retryAfterMs / 1000)))
  return reply.code(known.status).send(known.body())
}

function toMatrixError(error: unknown): MatrixError | undefined {
  if (error instanceof MatrixError) return error
  if (!isFastifyError(error)) return undefined
  const [finding] = error.validation ?? []
  if (finding !== undefined) {
    const where = quoted(dottedPath(finding.instancePath) || 'the body')
    const missing = missingMembers(finding)
    // As other homeservers do: one missing member is a missing parameter, several are malformed JSON.
    if (missing.length === 1) return missingParam(`${where} lacks the member ${quoted(missing.join())}.`)
    if (missing.length > 1) {
      return badJson(`${where} lacks the members ${missing.map((name) => quoted(name)).join(', ')}.`)
    }
    return badJson(`${where} ${finding.message ?? 'is invalid'}.`)
  }
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return tooLarge('The body is larger than this server accepts.')
  if (error.code === 'FST_ERR_MAX_PARAM_LENGTH') {
    return new MatrixError(414, 'M_TOO_LARGE', 'A path segment is longer than this server accepts.')
  }
  const status = error.statusCode ?? 500
  // Never use Fastify's text: it quotes the whole URL, which may contain an access token.
  return status < 500 ? new MatrixError(status, 'M_UNKNOWN', fastifyRefusal(error.code)) : undefined
}

function fastifyRefusal(code: string): string {
  if (code === 'FST_ERR_BAD_URL') return 'The request path is not valid percent-encoding.'
  return `The request could not be read (${code}).`
}

/** Converts a JSON pointer (RFC 6901) to a dotted path: `one_time_keys.signed_curve25519:AAAAHg`. */
function dottedPath(pointer: string): string {
  const members = pointer.split('/').slice(1)
  return members.map((member) => member.replaceAll('~1', '/').replaceAll('~0', '~')).join('.')
}

/** Names of all missing required members. Ajv itself reports only the first. */
function missingMembers(finding: FastifySchemaValidationError): readonly string[] {
  const missing = finding.params['missingProperty']
  if (typeof missing !== 'string') return []
  const { parentSchema, data } = finding as { parentSchema?: { required?: readonly string[] }; data?: object }
  const lacking = (parentSchema?.required ?? []).filter((name) => !Object.hasOwn(data ?? {}, name))
  return lacking.length === 0 ? [missing] : lacking
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && 'code' in error && 'statusCode' in error
}
