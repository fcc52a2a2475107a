/** Serves `GET /metrics` on a separate address, because metrics are for the operator and not for clients. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Registry } from 'prom-client'
import { ConfigError } from '../config/config-error.ts'

/** Bounds the pages that scrapers do not read. */
const MAX_CONNECTIONS = 100
const IDLE_MS = 60_000

export type MetricsPage = {
  /** `http://127.0.0.1:9464/metrics` */
  readonly url: string
  close(): Promise<void>
}

/**
 * @param text renders the page in Prometheus' format, once per request
 * @throws {ConfigError} if the address is unavailable
 */
export async function openMetricsPage(
  { host, port }: { readonly host: string; readonly port: number },
  text: () => Promise<string>,
): Promise<MetricsPage> {
  const server = createServer((request, response) => void answer(request, response, text))
  server.maxConnections = MAX_CONNECTIONS
  server.setTimeout(IDLE_MS)
  try {
    server.listen({ host, port, exclusive: true })
    await once(server, 'listening')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const reason = code === 'EADDRINUSE' ? 'the address is already in use' : code
    throw new ConfigError([
      `metrics_port ${port} on metrics_host ${host} cannot be used: ${reason}. Choose another port or host.`,
    ])
  }
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the metrics server has no address')
  const at = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return {
    url: `http://${at}:${address.port}/metrics`,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

async function answer(
  { method, url }: IncomingMessage,
  response: ServerResponse,
  text: () => Promise<string>,
): Promise<void> {
  response.setHeader('content-type', 'text/plain; charset=utf-8')
  if (url?.split('?')[0] !== '/metrics')
    return void response.writeHead(404).end('The metrics are at /metrics.\n')
  if (method !== 'GET' && method !== 'HEAD') {
    return void response.writeHead(405, { allow: 'GET, HEAD' }).end('Expected GET.\n')
  }
  try {
    const body = await text()
    response.setHeader('content-type', Registry.PROMETHEUS_CONTENT_TYPE)
    response.end(method === 'HEAD' ? '' : body)
  } catch (error) {
    response.writeHead(500).end(`The metrics could not be collected: ${String(error)}\n`)
  }
}
