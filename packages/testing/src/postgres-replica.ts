/**
 * A streaming replica behind its own proxy. While the proxy refuses connections, the replica misses the primary's
 * commits. Replication is asynchronous, so those acknowledged commits are lost when the replica is promoted.
 */
import { setTimeout as wait } from 'node:timers/promises'
import type { PostgresCluster } from './postgres-cluster.ts'
import { copyCluster, followPrimary } from './postgres-copy.ts'
import { TcpProxy } from './tcp-proxy.ts'

export type PostgresReplica = AsyncDisposable & {
  readonly cluster: PostgresCluster
  /** Stops replication: later commits do not arrive. */
  pause(): void
  resume(): void
  /** Resolves when the replica has replayed all that the primary has committed so far. */
  caughtUp(): Promise<void>
  /** Makes the replica a primary on a new timeline; resolves when it accepts writes. */
  promote(): Promise<void>
}

const CATCH_UP_WITHIN_MS = 30_000
const POLL_EVERY_MS = 20

/** The primary must keep its WAL while the replica is paused: `settings: { wal_keep_size: '512MB' }`. */
export async function startReplica(primary: PostgresCluster): Promise<PostgresReplica> {
  const proxy = await TcpProxy.before(new URL(primary.url))
  try {
    const copy = await copyCluster(primary)
    await followPrimary(copy, proxy.through(primary.url))
    const cluster = await copy.start({
      as: 'standby',
      settings: { hot_standby: 'on', wal_retrieve_retry_interval: '100ms' },
    })
    return {
      cluster,
      pause: () => proxy.refuse(),
      resume: () => proxy.accept(),
      caughtUp: () => caughtUp(primary, cluster),
      async promote() {
        proxy.refuse()
        await cluster.query(`select pg_promote(true)`)
      },
      async [Symbol.asyncDispose]() {
        await cluster.stop()
        await proxy.close()
      },
    }
  } catch (error) {
    await proxy.close()
    throw error
  }
}

async function caughtUp(primary: PostgresCluster, replica: PostgresCluster): Promise<void> {
  const [here] = await primary.query<{ lsn: string }>(`select pg_current_wal_flush_lsn() as lsn`)
  const deadline = performance.now() + CATCH_UP_WITHIN_MS
  for (;;) {
    const [there] = await replica.query<{ done: boolean | null }>(
      `select pg_last_wal_replay_lsn() >= $1::pg_lsn as done`,
      here?.lsn,
    )
    if (there?.done === true) return
    if (performance.now() > deadline)
      throw new Error(`the replica did not reach ${here?.lsn} within ${CATCH_UP_WITHIN_MS} ms`)
    await wait(POLL_EVERY_MS)
  }
}
