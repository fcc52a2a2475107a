/**
 * What has no route: 405 with an `Allow` header where the path is one of the table's and only the method is not, whatever
 * the method, and 404 for the rest. Fastify has no 405 of its own.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { MatrixError } from '../matrix-error.ts'

/** Methods by the pattern of the route, `/_matrix/client/v3/devices/:deviceId` for instance. */
export type MethodsByUrl = ReadonlyMap<string, ReadonlySet<string>>

/** The refusal of a request that no route takes. Asked for before the body is read, which nobody wants. */
export function refuseUnknown(
  methodsByUrl: MethodsByUrl,
): (request: FastifyRequest, reply: FastifyReply) => MatrixError | undefined {
  const known = [...methodsByUrl].map(([url, methods]) => ({
    pattern: patternOf(url),
    allow: [...methods, 'OPTIONS'].join(', '),
  }))
  return (request, reply) => {
    if (!request.is404) return undefined
    const path = pathOf(request.url)
    const found = known.find(({ pattern }) => pattern.test(path))
    if (found === undefined) {
      return new MatrixError(404, 'M_UNRECOGNIZED', 'No such endpoint on this server.')
    }
    reply.header('allow', found.allow)
    return new MatrixError(
      405,
      'M_UNRECOGNIZED',
      `This endpoint does not take ${request.method}; expected ${found.allow}.`,
    )
  }
}

function patternOf(url: string): RegExp {
  const parts = url.split('/').map((part) => (part.startsWith(':') ? '[^/]*' : part.replaceAll('.', '\\.')))
  return new RegExp(`^${parts.join('/')}$`)
}

/** As the router reads it: without the query, percent-decoded but for slashes. */
function pathOf(url: string): string {
  const [path = ''] = url.split('?')
  try {
    return decodeURI(path)
  } catch {
    return path
  }
}
