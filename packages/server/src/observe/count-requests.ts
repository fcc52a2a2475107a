/**
 * Records each request in the duration histogram, including requests aborted by the client, which Fastify's onResponse
 * hook does not see. The hook is registered only if metrics are on, because it costs time.
 */
import type { App } from '../http/app.ts'
import type { Metrics } from './metrics.ts'

/** Label of all paths without a route, so that clients cannot create labels. */
const NO_ROUTE = 'none'

/** Call it before routes are added: a hook applies only to routes added after it. */
export function countRequests(app: App, metrics: Metrics): void {
  app.addHook('onRequest', ({ method, routeOptions }, { raw }, done) => {
    const beganMs = performance.now()
    const route = routeOptions.url ?? NO_ROUTE
    raw.once('close', () => {
      const { statusCode } = raw
      const status = raw.writableFinished ? `${Math.floor(statusCode / 100)}xx` : 'aborted'
      metrics.requestEnded(method, route, status, (performance.now() - beganMs) / 1000)
      if (statusCode === 503 && !route.startsWith('/health/')) metrics.unavailable()
    })
    done()
  })
}
