/**
 * Graceful shutdown of the HTTP server: no new connections, open requests are answered within a bounded time. Fastify
 * alone either aborts responses or waits until keep-alive connections time out.
 */
import type { App } from './app.ts'

/** Requests still open after this time (slow bodies) are aborted. */
const ABORT_AFTER_MS = 3_000
/** Interval at which connections that became idle after their last response are closed. */
const CLOSE_IDLE_EVERY_MS = 50

export async function closeApp(app: App): Promise<void> {
  const closeIdle = setInterval(() => app.server.closeIdleConnections(), CLOSE_IDLE_EVERY_MS)
  const abort = setTimeout(() => app.server.closeAllConnections(), ABORT_AFTER_MS)
  try {
    await app.close()
  } finally {
    clearInterval(closeIdle)
    clearTimeout(abort)
  }
}
