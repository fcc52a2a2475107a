/**
 * One worker of `latchkey serve --workers N`: a whole server that shares its port with the others. When the process that
 * forked it is gone, whatever ended it, the worker answers what it has and ends too.
 */
import cluster from 'node:cluster'
import { once } from 'node:events'
import { type Server, startServer } from '../main.ts'
import { Metrics } from '../observe/metrics.ts'
import { countsOf } from '../observe/worker-metrics.ts'
import { describeFailure } from './describe-failure.ts'
import { endOnSignal } from './end-on-signal.ts'
import type { FromWorker, ToWorker } from './worker-messages.ts'

/**
 * Each worker has a listening socket of its own (SO_REUSEPORT) where the kernel spreads connections over them. Where it does
 * not, node:cluster hands them out from the parent, and a connection that was on its way to a worker that is killed hangs.
 */
const SHARES_PORT = process.platform === 'linux' || process.platform === 'freebsd'

/** Runs until it is told to end. The configuration comes from the parent: a file may have changed since. */
export async function runWorker(): Promise<void> {
  const [first] = (await once(process, 'message')) as [ToWorker]
  if (first.type !== 'start') throw new Error(`a worker was told to ${first.type} before it was to start`)
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
  const end = endOnSignal({
    async drain() {
      await server.close()
      return 'ended'
    },
    quiet: true,
  })
  endWithParent(end)
  process.on('message', (message: ToWorker) => {
    if (message.type === 'count' && metrics !== undefined) void sendCounts(metrics)
  })
  tell({ type: 'ready', url: server.url, serverName: server.serverName })
}

/** Node ends an orphan at once, and drops what it was answering, unless the parting counts as wanted. */
function endWithParent(end: () => void): void {
  const { worker } = cluster
  worker?.once('disconnect', () => {
    worker.exitedAfterDisconnect = true
    end()
  })
}

async function sendCounts(metrics: Metrics): Promise<void> {
  tell({ type: 'counts', counts: await countsOf(metrics.registry) })
}

/** A parent that is gone hears nothing; that it is gone is told elsewhere. */
function tell(message: FromWorker): void {
  if (process.connected) process.send?.(message, undefined, {}, () => {})
}
