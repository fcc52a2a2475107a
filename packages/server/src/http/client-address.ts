/**
 * The address a request comes from. Each proxy appends to `X-Forwarded-For` whom it got the request from, and the client
 * may have put anything there before: it is read from the right, past the proxies that the operator named and no further.
 */
import { isIP } from 'node:net'
import type { FastifyRequest, FastifyServerOptions } from 'fastify'
import type { Config } from '../config/config.ts'

/** Whose `X-Forwarded-For` Fastify is to believe. A bare number it would take for nobody's. */
export function trustedProxies(
  trusted: Config['trustProxy'],
): NonNullable<FastifyServerOptions['trustProxy']> {
  if (typeof trusted === 'number') return (_address, hop) => hop < trusted
  return trusted === 'off' ? false : [...trusted]
}

/** What a proxy wrote counts only if it is an address (`unknown`, a name or a port are not); else the proxy's own does. */
export function clientAddress(request: FastifyRequest): string {
  return isIP(request.ip) === 0 ? (request.raw.socket.remoteAddress ?? '') : request.ip
}
