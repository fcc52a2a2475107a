/**
 * Every request of a client in the histogram of durations, those that the client left included (Fastify's own hook at the
 * end of an answer does not see these). The hook is only there while something is counted: it costs.
 */
import type { App } from '../http/app.ts'
import type { Metrics } from './metrics.ts'

/** Paths without a route are one: their number must not be for clients to choose. */
const NO_ROUTE = 'none'

/** To be called before the routes are added: a hook holds for those that come after it. */
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
