/**
 * One worker of `latchkey serve --workers N`: a complete server that shares its port with the other workers. When its
 * parent process exits for any reason, the worker answers its open requests and exits too.
 */
import cluster from 'node:cluster'
import { once } from 'node:events'
import { type Server, startServer } from '../main.ts'
import { Metrics } from '../observe/metrics.ts'
import { countsOf } from '../observe/worker-metrics.ts'
import { describeFailure } from './describe-failure.ts'
import { shutdownOnSignal } from './shutdown-on-signal.ts'
import type { FromWorker, ToWorker } from './worker-messages.ts'

/**
 * Each worker has its own listening socket (SO_REUSEPORT) on platforms whose kernel distributes connections among them.
 * Elsewhere node:cluster distributes them from the parent; a connection in transit to a killed worker then hangs.
 */
const SHARES_PORT = process.platform === 'linux' || process.platform === 'freebsd'

/** Runs until shutdown. The configuration comes from the parent, because the file may have changed since. */
export async function runWorker(): Promise<void> {
  const [first] = (await once(process, 'message')) as [ToWorker]
  if (first.type !== 'start') throw new Error(`unexpected first message to a worker: ${first.type}`)
  const metrics = first.config.metricsPort === undefined ? undefined : new Metrics()
  let server: Server
  try {
    server = await startServer(first.config, { ...(metrics && { metrics }), sharePort: SHARES_PORT })
  } catch (error) {
    process.send?.(
      { type: 'failed', message: describeFailure(error) } satisfies FromWorker,
      undefined,
      {},
      () => process.exit(1),
    )
    return
  }
  const shutdown = shutdownOnSignal({
    async drain() {
      await server.close()
      return 'ended'
    },
    quiet: true,
  })
  shutdownWithParent(shutdown)
  process.on('message', (message: ToWorker) => {
    if (message.type === 'count' && metrics !== undefined) void sendCounts(metrics)
  })
  send({ type: 'ready', url: server.url, serverName: server.serverName })
}

/** Node kills an orphaned worker with its open requests, unless its disconnect is marked as intended. */
function shutdownWithParent(shutdown: () => void): void {
  const { worker } = cluster
  worker?.once('disconnect', () => {
    worker.exitedAfterDisconnect = true
    shutdown()
  })
}

async function sendCounts(metrics: Metrics): Promise<void> {
  send({ type: 'counts', counts: await countsOf(metrics.registry) })
}

/** Does nothing after the parent has exited; shutdownWithParent handles that case. */
function send(message: FromWorker): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {})
}
