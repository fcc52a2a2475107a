/** The only wiring: from a checked configuration to a running server. */
import { createApp, addRoutes } from './http/app.ts'
import { closeApp } from './http/close-app.ts'
import { InteractiveAuth } from './accounts/interactive-auth.ts'
import { Passwords } from './accounts/passwords.ts'
import { type Config, postgresOptions, type RateLimits, storeOptions, usesPostgres } from './config/config.ts'
import type { Context, Limiters } from './context.ts'
import { TokenBuckets } from './lib/token-bucket.ts'
import { ClaimBudgets } from './pool/depletion.ts'
import { SparedClaims } from './pool/spared-claims.ts'
import type { Store } from './store.ts'
import { openPostgresStore } from './store/postgres/index.ts'
import { openSqliteStore } from './store/sqlite/index.ts'
import { SyncWaiters } from './sync/waiters.ts'

export type Server = {
  /** Where it listens, `http://127.0.0.1:8008` for instance. */
  readonly url: string
  readonly serverName: string
  readonly context: Context
  /** Answers what is open, commits, and lets go of everything. Idempotent. */
  close(): Promise<void>
}

/** What tests replace. */
export type Overrides = { readonly now?: () => number }

/**
 * Opens the store and listens. Port 0 takes any free port.
 *
 * @throws {StoreError} when the data directory or the database cannot be used; the system's error when the address cannot.
 */
export async function startServer(config: Config, overrides: Overrides = {}): Promise<Server> {
  const now = overrides.now ?? Date.now
  const { sizes, rates } = config
  const store = await openStore(config, now)
  try {
    const serverName = await store.claimServerName(config.serverName)
    const app = createApp({ ...sizes, trustProxy: config.trustProxy, logLevel: config.logLevel })
    const passwords = new Passwords()
    const waiters = new SyncWaiters(sizes)
    const limiters: Limiters = rates === undefined ? {} : limitersOf(rates)
    const context: Context = {
      config,
      serverName,
      store,
      limiters,
      sparedClaims: new SparedClaims(),
      passwords,
      interactiveAuth: new InteractiveAuth({
        accounts: store.accounts,
        passwords,
        serverName,
        now,
        ...(config.rates && { triesPerUser: new TokenBuckets(config.rates.loginPerAccount) }),
      }),
      waiters,
      log: app.log,
      now,
    }
    store.sync.subscribe({ device: (ref) => waiters.wakeDevice(ref), user: (ref) => waiters.wakeUser(ref) })
    await addRoutes(app, context)
    const url = await app.listen({ host: config.host, port: config.port })
    let closing: Promise<void> | undefined
    const close = async (): Promise<void> => {
      waiters.close()
      await closeApp(app)
      await store.close()
    }
    return { url, serverName, context, close: () => (closing ??= close()) }
  } catch (error) {
    await store.close()
    throw error
  }
}

function openStore(config: Config, now: () => number): Promise<Store> | Store {
  const { rates } = config
  const common = { ...(rates && { depletion: new ClaimBudgets(rates.claimPerTarget) }), now }
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
    resetPerDevice: new TokenBuckets(rates.resetPerDevice),
    sendToDevicePerDevice: new TokenBuckets(rates.sendToDevicePerDevice),
  }
}
