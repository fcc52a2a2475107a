/**
 * Client address of a request. Each proxy appends its peer's address to `X-Forwarded-For`, and the client can send any
 * value there: the header is read from the right, past the configured proxies and no further.
 */
import { isIP } from 'node:net'
import type { FastifyReply, FastifyRequest, FastifyServerOptions } from 'fastify'
import type { Config } from '../config/config.ts'
import type { Context } from '../context.ts'

/** Fastify's `trustProxy` option. Fastify ignores a bare number, so a hop count becomes a function. */
export function trustedProxies(
  trusted: Config['trustProxy'],
): NonNullable<FastifyServerOptions['trustProxy']> {
  if (typeof trusted === 'number') return (_address, hop) => hop < trusted
  return trusted === 'off' ? false : [...trusted]
}

/**
 * Falls back to the peer's address if the proxy's entry is not an IP address (`unknown`, a host name, an address with a
 * port).
 */
export function clientAddress(request: FastifyRequest): string {
  return isIP(request.ip) === 0 ? (request.raw.socket.remoteAddress ?? '') : request.ip
}

type Hook = (request: FastifyRequest, reply: FastifyReply, done: () => void) => void

/**
 * Says once in the operator's log that a proxy's header is ignored: behind a proxy all clients then count as one
 * address, and 20 wrong logins of any of them stop the logins of all.
 */
export function proxyWarning({ config, log }: Pick<Context, 'config' | 'log'>): Hook {
  let isDone = config.trustProxy !== 'off'
  return ({ headers }, _reply, done) => {
    if (!isDone && headers['x-forwarded-for'] !== undefined) {
      isDone = true
      log.warn(
        'A request has an X-Forwarded-For header, which is ignored because trust_proxy is off. Behind a proxy, set trust_proxy: otherwise all its clients share the limits of one address.',
      )
    }
    done()
  }
}
