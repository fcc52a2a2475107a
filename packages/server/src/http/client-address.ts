/**
 * Client address of a request. Each proxy appends its peer's address to `X-Forwarded-For`, and the client can send any
 * value there: the header is read from the right, past the configured proxies and no further.
 */
import { isIP } from 'node:net'
import type { FastifyRequest, FastifyServerOptions } from 'fastify'
import type { Config } from '../config/config.ts'

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
