/** How failures become answers: MatrixError as it says, Fastify's own refusals in the Matrix form, the rest a logged 500. */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { badJson, MatrixError, missingParam, quoted, tooLarge } from '../matrix-error.ts'

export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = toMatrixError(error)
  if (known === undefined) {
    request.log.error(
      { err: error, method: request.method, route: request.routeOptions.url },
      'a request failed by a fault of the server',
    )
    return reply.code(500).send({ errcode: 'M_UNKNOWN', error: 'Internal server error; it was logged.' })
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
    const where = quoted(finding.instancePath.slice(1).replaceAll('/', '.') || 'the body')
    const missing = finding.params['missingProperty']
    const requiredMembers = finding.params['requiredProperties']
    if (typeof missing === 'string' || Array.isArray(requiredMembers)) {
      const name = typeof missing === 'string' ? missing : String(requiredMembers)
      return missingParam(`${where} lacks the member ${quoted(name)}.`)
    }
    return badJson(`${where} ${finding.message ?? 'is not as expected'}.`)
  }
  if (error.code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return tooLarge('The body is larger than this server accepts.')
  const status = error.statusCode ?? 500
  return status < 500 ? new MatrixError(status, 'M_UNKNOWN', error.message) : undefined
}

function isFastifyError(error: unknown): error is FastifyError {
  return error instanceof Error && 'code' in error && 'statusCode' in error
}
