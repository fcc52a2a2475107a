/** Composition root: builds a running server from a validated configuration. */
import { openControlSocket, type ControlSocket } from './control/control-server.ts'
import { createApp, addRoutes } from './http/app.ts'
import { AnswersInFlight } from './http/answers-in-flight.ts'
import { closeApp } from './http/close-app.ts'
import { watchConnections } from './http/connections.ts'
import { InteractiveAuth } from './accounts/interactive-auth.ts'
import { networkHasher } from './accounts/known-networks.ts'
import { LoginLimits } from './accounts/login-limits.ts'
import { Passwords } from './accounts/passwords.ts'
import {
  type Config,
  fenceOptions,
  hashCost,
  postgresOptions,
  type RateLimits,
  storeOptions,
  usesPostgres,
} from './config/config.ts'
import type { Context, Limiters } from './context.ts'
import type { OnFence } from './fence/events.ts'
import { NetworkBuckets } from './lib/network-buckets.ts'
import { TokenBuckets } from './lib/token-bucket.ts'
import { SendBudgets } from './messages/send-budget.ts'
import { countRequests } from './observe/count-requests.ts'
import { countPools, countStore } from './observe/count-store.ts'
import { Metrics } from './observe/metrics.ts'
import { openSecurityLog } from './observe/security-log.ts'
import { reportFence } from './observe/report-fence.ts'
import { reportLostOwner } from './observe/report-lost-owner.ts'
import { type MetricsPage, openMetricsPage } from './observe/metrics-page.ts'
import { ClaimBudgets } from './pool/depletion.ts'
import { KeyPools } from './pool/key-pools.ts'
import { LimitedClaims } from './pool/limited-claims.ts'
import type { Store } from './store.ts'
import { openPostgresStore } from './store/postgres/index.ts'
import { openSqliteStore } from './store/sqlite/index.ts'
import type { Loss } from './store/sqlite/owner.ts'
import { SyncWaiters } from './sync/waiters.ts'

export type Server = {
  /** Base URL, for example `http://127.0.0.1:8008`. */
  readonly url: string
  readonly serverName: string
  /** URL of the metrics page, if this server opened one. */
  readonly metricsUrl?: string
  readonly context: Context
  /** Answers open requests, commits, and releases all resources. Idempotent. */
  close(): Promise<void>
}

/** Replaceable dependencies: tests replace the clock, workers the metrics. */
export type Overrides = {
  readonly now?: () => number
  /** Metrics to count into; the caller serves them. By default `metrics_port` decides. */
  readonly metrics?: Metrics
  /** Listen with SO_REUSEPORT: the kernel distributes connections among the processes on the port. */
  readonly sharePort?: boolean
  /** Another process has opened the embedded database: the caller must close this server and end the process. */
  readonly onLost?: () => void
}

/**
 * Opens the store and listens. Port 0 takes any free port.
 *
 * @throws {StoreError} if the data directory or the database cannot be used
 * @throws {ConfigError} if the metrics address is unavailable; the system's error if the client address is
 */
export async function startServer(config: Config, overrides: Overrides = {}): Promise<Server> {
  const now = overrides.now ?? Date.now
  const { sizes, rates, metricsHost, metricsPort } = config
  const metrics = overrides.metrics ?? (metricsPort === undefined ? undefined : new Metrics())
  // Created before the store, which uses its logger.
  const security = openSecurityLog(config.securityLog, {
    now,
    ...(metrics && { count: (event) => metrics.securityEvent(event) }),
    onFailure: (error) => app.log.error({ err: error }, 'the security log cannot be written'),
  })
  const { trustProxy, logLevel } = config
  const app = createApp({ ...sizes, trustProxy, logLevel, securityLog: security.log })
  let store: Store | undefined
  let page: MetricsPage | undefined
  let control: ControlSocket | undefined
  const release = async (): Promise<void> => {
    await closeApp(app)
    await page?.close()
    await control?.close()
    await store?.close()
    security.close()
  }
  try {
    const onLost = (loss: Loss): void => {
      reportLostOwner(app.log, config.dataDir, loss)
      overrides.onLost?.()
    }
    store = await openStore(config, { now, onLost, onFence: reportFence(app.log, metrics) })
    const serverName = await store.claimServerName(config.serverName)
    const passwords = new Passwords(hashCost(config))
    const hashNetwork = networkHasher(store.sync.tokenSecret)
    const waiters = new SyncWaiters(sizes, () => performance.now())
    const answers = new AnswersInFlight(sizes, () => performance.now())
    watchConnections(app.server, sizes.answerTimeoutMs)
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
      ...(rates && { loginLimits: new LoginLimits(store.accounts, hashNetwork, rates) }),
      hashNetwork,
      ...(rates && { sendBudgets: new SendBudgets(rates) }),
      pools: metrics === undefined ? pools : countPools(pools, metrics),
      limitedClaims: new LimitedClaims(),
      passwords,
      interactiveAuth: new InteractiveAuth({
        accounts: store.accounts,
        sessions: store.authSessions,
        passwords,
        serverName,
        now,
        ...(config.rates && { triesPerUser: new TokenBuckets(config.rates.loginPerAccount) }),
      }),
      waiters,
      answers,
      ...(metrics && { metrics }),
      log: app.log,
      securityLog: security.log,
      now,
    }
    store.sync.subscribe({
      device: (ref) => waiters.wakeDevice(ref),
      users: (refs) => waiters.wakeUsers(refs),
      everyone: () => waiters.wakeEveryone(),
    })
    if (metrics !== undefined) {
      metrics.watch({
        waitingSyncs: () => waiters.count,
        answerBytes: () => answers.bytes,
        ...(store.connections && { connections: store.connections }),
      })
      countRequests(app, metrics)
    }
    await addRoutes(app, context)
    if (!usesPostgres(config)) {
      const { passwordMinLength } = config
      const { accounts, devices, admin } = store
      const deps = { accounts, devices, admin, passwords, serverName, passwordMinLength, now }
      control = await openControlSocket(config.dataDir, { deps, securityLog: security.log, log: app.log })
    }
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
      await release()
    }
    return {
      url,
      serverName,
      context,
      ...(page && { metricsUrl: page.url }),
      close: () => (closing ??= close()),
    }
  } catch (error) {
    await release()
    throw error
  }
}

type StoreEvents = {
  readonly now: () => number
  readonly onLost: (loss: Loss) => void
  readonly onFence: OnFence
}

function openStore(config: Config, { onLost, ...events }: StoreEvents): Promise<Store> {
  const { rates } = config
  const depletion = rates && { depletion: new ClaimBudgets(rates.claimPerTarget) }
  const common = { ...depletion, ...fenceOptions(config), ...events }
  return usesPostgres(config)
    ? openPostgresStore({ ...postgresOptions(config), ...common })
    : openSqliteStore({ ...storeOptions(config), ...common, onLost })
}

function limitersOf(rates: RateLimits): Limiters {
  return {
    registerRequestPerAddress: new NetworkBuckets(rates.loginPerAddress),
    registrationPerAddress: new NetworkBuckets(rates.registrationPerAddress),
    workPerUser: new TokenBuckets(rates.workPerUser),
    workPerAddress: new TokenBuckets(rates.workPerAddress),
  }
}
