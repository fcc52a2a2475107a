/**
 * Refusal of requests without a route: 405 with an `Allow` header if the path is known and the method is not, else 404.
 * Fastify has no 405 of its own.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { MatrixError } from '../matrix-error.ts'

/** Methods by route pattern, for example `/_matrix/client/v3/devices/:deviceId`. */
export type MethodsByUrl = ReadonlyMap<string, ReadonlySet<string>>

/** Returns the refusal for a request without a route. Runs before the body is read, so that no body is read in vain. */
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
      `This endpoint does not accept ${request.method}; expected ${found.allow}.`,
    )
  }
}

function patternOf(url: string): RegExp {
  const parts = url.split('/').map((part) => (part.startsWith(':') ? '[^/]*' : part.replaceAll('.', '\\.')))
  return new RegExp(`^${parts.join('/')}$`)
}

/** The path as the router sees it: without the query, percent-decoded except for slashes. */
function pathOf(url: string): string {
  const [path = ''] = url.split('?')
  try {
    return decodeURI(path)
  } catch {
    return path
  }
}
