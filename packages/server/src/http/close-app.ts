/**
 * The orderly end of the HTTP side: no new connections, an answer for what is under way, and a bound on how long that
 * may take. Fastify alone either cuts answers off or waits for keep-alive connections to run out.
 */
import type { App } from './app.ts'

/** A request that has not ended by then (a body that trickles in) is cut. */
const CUT_AFTER_MS = 3_000
/** A connection that was busy when the end began becomes idle with its answer; it is closed this soon after. */
const REAP_EVERY_MS = 50

export async function closeApp(app: App): Promise<void> {
  const reaper = setInterval(() => app.server.closeIdleConnections(), REAP_EVERY_MS)
  const cut = setTimeout(() => app.server.closeAllConnections(), CUT_AFTER_MS)
  try {
    await app.close()
  } finally {
    clearInterval(reaper)
    clearTimeout(cut)
  }
}
