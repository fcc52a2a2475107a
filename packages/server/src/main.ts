/** The only wiring: from a checked configuration to a running server. */
import { createApp, addRoutes } from './http/app.ts'
import { closeApp } from './http/close-app.ts'
import { InteractiveAuth } from './accounts/interactive-auth.ts'
import { Passwords } from './accounts/passwords.ts'
import {
  type Config,
  fenceOptions,
  postgresOptions,
  type RateLimits,
  storeOptions,
  usesPostgres,
} from './config/config.ts'
import type { Context, Limiters } from './context.ts'
import type { OnFence } from './fence/events.ts'
import { TokenBuckets } from './lib/token-bucket.ts'
import { countRequests } from './observe/count-requests.ts'
import { countPools, countStore } from './observe/count-store.ts'
import { Metrics } from './observe/metrics.ts'
import { reportFence } from './observe/report-fence.ts'
import { type MetricsPage, openMetricsPage } from './observe/metrics-page.ts'
import { ClaimBudgets } from './pool/depletion.ts'
import { KeyPools } from './pool/key-pools.ts'
import { LimitedClaims } from './pool/limited-claims.ts'
import type { Store } from './store.ts'
import { openPostgresStore } from './store/postgres/index.ts'
import { openSqliteStore } from './store/sqlite/index.ts'
import { SyncWaiters } from './sync/waiters.ts'

export type Server = {
  /** Where it listens, `http://127.0.0.1:8008` for instance. */
  readonly url: string
  readonly serverName: string
  /** Where its metrics are, if they are on, and nobody else shows them. */
  readonly metricsUrl?: string
  readonly context: Context
  /** Answers what is open, commits, and lets go of everything. Idempotent. */
  close(): Promise<void>
}

/** What callers replace: tests the clock, a worker of many the metrics. */
export type Overrides = {
  readonly now?: () => number
  /** Counts into these, and leaves it to the caller to show them. By default `metrics_port` decides. */
  readonly metrics?: Metrics
  /** Other processes listen on the same port: the kernel gives each of them its part of the connections. */
  readonly sharePort?: boolean
}

/**
 * Opens the store and listens. Port 0 takes any free port.
 *
 * @throws {StoreError} when the data directory or the database cannot be used; the system's error when the address cannot.
 * @throws {ConfigError} when the address of the metrics cannot be had
 */
export async function startServer(config: Config, overrides: Overrides = {}): Promise<Server> {
  const now = overrides.now ?? Date.now
  const { sizes, rates, metricsHost, metricsPort } = config
  const metrics = overrides.metrics ?? (metricsPort === undefined ? undefined : new Metrics())
  // Before the store, which writes into its log.
  const app = createApp({ ...sizes, trustProxy: config.trustProxy, logLevel: config.logLevel })
  let store: Store | undefined
  let page: MetricsPage | undefined
  const end = async (): Promise<void> => {
    await closeApp(app)
    await page?.close()
    await store?.close()
  }
  try {
    store = await openStore(config, now, reportFence(app.log, metrics))
    const serverName = await store.claimServerName(config.serverName)
    const passwords = new Passwords()
    const waiters = new SyncWaiters(sizes)
    const limiters: Limiters = rates === undefined ? {} : limitersOf(rates)
    const pools = new KeyPools(store.pools, {
      policy: config.pools,
      ...(rates && { resetsPerDevice: new TokenBuckets(rates.resetPerDevice) }),
    })
    const context: Context = {
      config,
      serverName,
      store: metrics === undefined ? store : countStore(store, metrics),
      limiters,
      pools: metrics === undefined ? pools : countPools(pools, metrics),
      limitedClaims: new LimitedClaims(),
      passwords,
      interactiveAuth: new InteractiveAuth({
        accounts: store.accounts,
        passwords,
        serverName,
        now,
        ...(config.rates && { triesPerUser: new TokenBuckets(config.rates.loginPerAccount) }),
      }),
      waiters,
      ...(metrics && { metrics }),
      log: app.log,
      now,
    }
    store.sync.subscribe({
      device: (ref) => waiters.wakeDevice(ref),
      user: (ref) => waiters.wakeUser(ref),
      everyone: () => waiters.wakeEveryone(Math.min(MAX_SPREAD_MS, waiters.count * SPREAD_MS)),
    })
    if (metrics !== undefined) {
      metrics.watch({
        waitingSyncs: () => waiters.count,
        ...(store.connections && { connections: store.connections }),
      })
      countRequests(app, metrics)
    }
    await addRoutes(app, context)
    if (metrics !== undefined && metricsPort !== undefined && overrides.metrics === undefined) {
      page = await openMetricsPage({ host: metricsHost, port: metricsPort }, () => metrics.registry.metrics())
    }
    const url = await app.listen({
      host: config.host,
      port: config.port,
      ...(overrides.sharePort && { reusePort: true }),
    })
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      waiters.close()
      await end()
    }
    return {
      url,
      serverName,
      context,
      ...(page && { metricsUrl: page.url }),
      close: () => (closing ??= close()),
    }
  } catch (error) {
    await end()
    throw error
  }
}

/** After the fence was raised clients come back one after the other: so far apart, and the last of them after so long. */
const SPREAD_MS = 5
const MAX_SPREAD_MS = 30_000

function openStore(config: Config, now: () => number, onFence: OnFence): Promise<Store> | Store {
  const { rates } = config
  const depletion = rates && { depletion: new ClaimBudgets(rates.claimPerTarget) }
  const common = { ...depletion, ...fenceOptions(config), onFence, now }
  return usesPostgres(config)
    ? openPostgresStore({ ...postgresOptions(config), ...common })
    : openSqliteStore({ ...storeOptions(config), ...common })
}

function limitersOf(rates: RateLimits): Limiters {
  return {
    loginPerAddress: new TokenBuckets(rates.loginPerAddress),
    loginPerAccount: new TokenBuckets(rates.loginPerAccount),
    loginPerAccountInAll: new TokenBuckets(rates.loginPerAccountInAll),
    registrationPerAddress: new TokenBuckets(rates.registrationPerAddress),
    sendToDevicePerDevice: new TokenBuckets(rates.sendToDevicePerDevice),
  }
}
