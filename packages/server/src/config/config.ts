/** The checked configuration. docs/reference/configuration.md holds the same keys; a test compares the two. */
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../pool/policy.ts'
import type { BucketRate } from '../lib/token-bucket.ts'

export type Registration = 'open' | 'token' | 'closed'

export type RateLimits = {
  readonly loginPerAddress: BucketRate
  /** Per account and address, and for passwords asked for in user-interactive authentication per user. */
  readonly loginPerAccount: BucketRate
  /** Per account, from all addresses together: so large that only many of them at once reach it. */
  readonly loginPerAccountInAll: BucketRate
  readonly registrationPerAddress: BucketRate
  readonly resetPerDevice: BucketRate
  /** Depletion defence, per claiming user and target device. */
  readonly claimPerTarget: BucketRate
  readonly sendToDevicePerDevice: BucketRate
}

/** How many proxies stand in front, or their addresses and networks (`10.0.0.0/8`). */
export type TrustedProxies = 'off' | number | readonly string[]

export type SizeLimits = {
  /** The largest body that any endpoint takes. */
  readonly bodyBytes: number
  /** Of bodies on their way, all requests together. */
  readonly bodyBytesInFlight: number
  readonly jsonDepth: number
  /** Objects, arrays, strings, numbers and literals in one body. */
  readonly jsonValues: number
  /** Canonical bytes of one to-device message's content. */
  readonly toDeviceBytes: number
  /** Undelivered to-device messages per device, and the characters of their JSON; beyond it the oldest go. */
  readonly inboxMessages: number
  readonly inboxLength: number
  readonly toDevicePerSync: number
  /** Syncs waiting at once, in all and for one device. */
  readonly waitingSyncs: number
  readonly waitingSyncsPerDevice: number
  readonly syncTimeoutMs: number
  /** How long a request's head and body may take to arrive. */
  readonly requestTimeoutMs: number
  readonly connections: number
  readonly accountDataBytes: number
  readonly accountDataTypesPerUser: number
  /** Types and contents together. */
  readonly accountDataTotalBytes: number
  readonly filterBytes: number
  readonly filtersPerUser: number
  readonly devicesPerUser: number
}

export type Config = {
  readonly host: string
  readonly port: number
  /** Processes that serve together; more than one needs PostgreSQL. */
  readonly workers: number
  readonly dataDir: string
  /** A `postgres://` URL. Undefined: the embedded database in `dataDir`. Holds a password: nothing prints it. */
  readonly database?: string
  /** Connections of one process to PostgreSQL for requests; one more listens. */
  readonly databaseConnections: number
  /** Whether this process keeps a witness of what it acknowledged (store/witness.ts), and where; undefined: in `dataDir`. */
  readonly fence: boolean
  readonly fenceDir?: string
  /** Undefined: what the database says, or `localhost` at the first start. */
  readonly serverName?: string
  readonly registration: Registration
  /** Open registration on an address that others can reach has to be asked for twice. */
  readonly openRegistrationConfirmed: boolean
  /** Serve `/keys/reset` at `/v3` too, although MSC4162 is open. */
  readonly stableReset: boolean
  readonly passwordMinLength: number
  /** How long details of issued keys, and the memory of removed devices, are kept. */
  readonly retentionDays: number
  /** Whose X-Forwarded-For tells the client's address. */
  readonly trustProxy: TrustedProxies
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** Where the metrics are served, apart from the clients' port. Undefined: nothing is counted. */
  readonly metricsPort?: number
  readonly metricsHost: string
  readonly pools: PoolPolicy
  /** Undefined: no rate limits. */
  readonly rates?: RateLimits
  readonly sizes: SizeLimits
}

export const DEFAULT_RATES: RateLimits = {
  loginPerAddress: { burst: 20, perSecond: 0.2 },
  loginPerAccount: { burst: 10, perSecond: 0.1 },
  loginPerAccountInAll: { burst: 100, perSecond: 0.5 },
  registrationPerAddress: { burst: 10, perSecond: 0.05 },
  resetPerDevice: { burst: 10, perSecond: 0.1 },
  claimPerTarget: { burst: 60, perSecond: 1 / 60 },
  sendToDevicePerDevice: { burst: 600, perSecond: 60 },
}

export const DEFAULT_SIZES: SizeLimits = {
  bodyBytes: 10 * 1024 * 1024,
  bodyBytesInFlight: 256 * 1024 * 1024,
  jsonDepth: 64,
  jsonValues: 200_000,
  toDeviceBytes: 65_536,
  inboxMessages: 50_000,
  inboxLength: 64 * 1024 * 1024,
  toDevicePerSync: 100,
  waitingSyncs: 20_000,
  waitingSyncsPerDevice: 8,
  syncTimeoutMs: 5 * 60_000,
  requestTimeoutMs: 60_000,
  connections: 50_000,
  accountDataBytes: 65_536,
  accountDataTypesPerUser: 1000,
  accountDataTotalBytes: 4 * 1024 * 1024,
  filterBytes: 65_536,
  filtersPerUser: 200,
  devicesPerUser: 1000,
}

export const DEFAULT_CONFIG: Config = {
  host: '127.0.0.1',
  port: 8008,
  workers: 1,
  dataDir: './latchkey-data',
  databaseConnections: 10,
  fence: true,
  registration: 'token',
  openRegistrationConfirmed: false,
  stableReset: true,
  passwordMinLength: 8,
  retentionDays: 90,
  trustProxy: 'off',
  logLevel: 'warn',
  metricsHost: '127.0.0.1',
  pools: DEFAULT_POOL_POLICY,
  rates: DEFAULT_RATES,
  sizes: DEFAULT_SIZES,
}

const DAY_MS = 24 * 60 * 60 * 1000

/** What the embedded store needs to know of the configuration. */
export function storeOptions(config: Config) {
  return { directory: config.dataDir, ...commonOptions(config) }
}

/** What the PostgreSQL store needs to know of it. */
export function postgresOptions(config: Config & { readonly database: string }) {
  // Sizes have `connections` too, of clients: those to the database are meant here.
  return { ...commonOptions(config), ...postgresConnection(config) }
}

/** Where PostgreSQL is. Of the URL's parameters `schema` is ours. */
export function postgresConnection({
  database,
  databaseConnections: connections,
}: Config & { readonly database: string }) {
  const url = new URL(database)
  const schema = url.searchParams.get('schema')
  if (schema !== null) url.searchParams.delete('schema')
  return { url: url.href, connections, ...(schema && { schema }) }
}

/** Where a server keeps its witness; nothing when it keeps none. Commands beside a server keep none. */
export function fenceOptions({ fence, fenceDir, dataDir }: Config) {
  return fence ? { fence: { directory: fenceDir ?? dataDir } } : {}
}

/** Whether a configuration names a PostgreSQL database. */
export function usesPostgres(config: Config): config is Config & { readonly database: string } {
  return config.database !== undefined
}

function commonOptions({ pools, sizes, retentionDays }: Config) {
  return { pools, retentionMs: retentionDays * DAY_MS, ...sizes }
}
