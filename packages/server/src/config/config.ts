/** The validated configuration. docs/reference/configuration.md lists the same keys; a test compares the two. */
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../pool/policy.ts'
import { DEFAULT_COST, type HashCost } from '../accounts/password-hash.ts'
import type { WitnessPlaces } from './witness-places.ts'
import type { BucketRate } from '../lib/token-bucket.ts'
import type { SendRates } from '../messages/send-budget.ts'

export type Registration = 'open' | 'token' | 'closed'

export type RateLimits = SendRates & {
  readonly loginPerAddress: BucketRate
  /** Per account and address; in user-interactive authentication, per user. */
  readonly loginPerAccount: BucketRate
  /** Per account across all addresses: large enough that only a distributed attack reaches it. */
  readonly loginPerAccountInAll: BucketRate
  readonly registrationPerAddress: BucketRate
  readonly resetPerDevice: BucketRate
  /** Depletion defence, per claiming user and target device. */
  readonly claimPerTarget: BucketRate
  /** Work for the requests of one user, and for anonymous ones of one address, in units of http/costs.ts. */
  readonly workPerUser: BucketRate
  readonly workPerAddress: BucketRate
}

/** Number of proxies in front of the server, or their addresses and networks (`10.0.0.0/8`). */
export type TrustedProxies = 'off' | number | readonly string[]

export type SizeLimits = {
  /** Maximum body size of any endpoint. */
  readonly bodyBytes: number
  /** Maximum bytes of incoming bodies across all requests. */
  readonly bodyBytesInFlight: number
  /** Bytes of answers that clients have not taken yet: of all, and of one user. */
  readonly answerBytesInFlight: number
  readonly answerBytesPerUser: number
  /** Time without progress after which an answer is cut off. */
  readonly answerTimeoutMs: number
  readonly jsonDepth: number
  /** Objects, arrays, strings, numbers and literals in one body. */
  readonly jsonValues: number
  /** Canonical bytes of one to-device message's content. */
  readonly toDeviceBytes: number
  /** Undelivered to-device messages per device, and the characters of their JSON; over it, the oldest are dropped. */
  readonly inboxMessages: number
  readonly inboxLength: number
  readonly toDevicePerSync: number
  /** Messages in one sync answer, and account data in one. */
  readonly syncPageBytes: number
  /** Concurrently waiting syncs, in total, per user and per device. */
  readonly waitingSyncs: number
  readonly waitingSyncsPerUser: number
  readonly waitingSyncsPerDevice: number
  readonly syncTimeoutMs: number
  /** Time limit for a request's headers and body to arrive. */
  readonly requestTimeoutMs: number
  readonly connections: number
  readonly accountDataBytes: number
  readonly accountDataTypesPerUser: number
  /** Size of types and contents of one user together. */
  readonly accountDataTotalBytes: number
  readonly filterBytes: number
  readonly filtersPerUser: number
  readonly devicesPerUser: number
  /** Requests that are worked on at the same time; further ones wait. Without rate limits there is no bound. */
  readonly requestsInFlightPerDevice: number
  readonly requestsInFlightPerUser: number
}

export type Config = {
  readonly host: string
  readonly port: number
  /** Number of server processes; more than one needs PostgreSQL. */
  readonly workers: number
  readonly dataDir: string
  /** A `postgres://` URL. Undefined: the embedded database in `dataDir`. May contain a password: never print it. */
  readonly database?: string
  /** Connections per process to PostgreSQL for requests; one more is used for LISTEN. */
  readonly databaseConnections: number
  /**
   * Whether this process keeps a witness of acknowledged writes (store/witness.ts), and where.
   */
  readonly fence: boolean
  readonly fenceDir?: string
  /** From the environment (witness-places.ts). Undefined: `fenceDir`, or `dataDir`. */
  readonly witnessPlaces?: WitnessPlaces
  /** Undefined: the name in the database, or `localhost` at the first start. */
  readonly serverName?: string
  readonly registration: Registration
  /** Required for open registration on an address that is not loopback. */
  readonly openRegistrationConfirmed: boolean
  /** Also serve `/keys/reset` under `/v3`, although MSC4162 is not merged. */
  readonly stableReset: boolean
  /** Undefined: access tokens do not expire. */
  readonly accessTokenLifetimeMs?: number
  readonly passwordMinLength: number
  /** The cost of new password hashes: bytes of memory, and passes over it. */
  readonly passwordHashMemory: number
  readonly passwordHashPasses: number
  /** Retention of details of issued keys and of records of removed devices. */
  readonly retentionDays: number
  /** Proxies whose X-Forwarded-For header is trusted. */
  readonly trustProxy: TrustedProxies
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** Place of the security log: `on` (stderr), `off`, or a file. */
  readonly securityLog: string
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
  // Fifteen fan-outs to 10 000 devices at once, of 1.7 KiB for each device; then 12 000 deliveries a minute.
  toDeviceDeliveriesPerUser: { burst: 150_000, perSecond: 200 },
  toDeviceKibPerUser: { burst: 256 * 1024, perSecond: 320 },
  // Three seconds of work at once, then 3 % of a thread: one full-size request of each endpoint, with ten full
  // fan-outs.
  workPerUser: { burst: 300_000, perSecond: 3_000 },
  workPerAddress: { burst: 60_000, perSecond: 3_000 },
}

export const DEFAULT_SIZES: SizeLimits = {
  bodyBytes: 10 * 1024 * 1024,
  bodyBytesInFlight: 256 * 1024 * 1024,
  answerBytesInFlight: 256 * 1024 * 1024,
  answerBytesPerUser: 32 * 1024 * 1024,
  answerTimeoutMs: 60_000,
  jsonDepth: 64,
  jsonValues: 200_000,
  toDeviceBytes: 65_536,
  inboxMessages: 50_000,
  inboxLength: 64 * 1024 * 1024,
  toDevicePerSync: 100,
  syncPageBytes: 1024 * 1024,
  waitingSyncs: 20_000,
  waitingSyncsPerUser: 100,
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
  requestsInFlightPerDevice: 10,
  requestsInFlightPerUser: 20,
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
  passwordHashMemory: DEFAULT_COST.memory * 1024,
  passwordHashPasses: DEFAULT_COST.passes,
  retentionDays: 90,
  trustProxy: 'off',
  logLevel: 'warn',
  securityLog: 'on',
  metricsHost: '127.0.0.1',
  pools: DEFAULT_POOL_POLICY,
  rates: DEFAULT_RATES,
  sizes: DEFAULT_SIZES,
}

const DAY_MS = 24 * 60 * 60 * 1000

/** Options of the embedded store. */
export function storeOptions(config: Config) {
  return { directory: config.dataDir, ...commonOptions(config) }
}

/** Options of the PostgreSQL store. */
export function postgresOptions(config: Config & { readonly database: string }) {
  // After commonOptions: `sizes.connections` limits client connections and would overwrite the database's.
  return { ...commonOptions(config), ...postgresConnection(config) }
}

/** Connection options of PostgreSQL. The URL parameter `schema` is Latchkey's own. */
export function postgresConnection({
  database,
  databaseConnections: connections,
}: Config & { readonly database: string }) {
  const url = new URL(database)
  const schema = url.searchParams.get('schema')
  if (schema !== null) url.searchParams.delete('schema')
  return { url: url.href, connections, ...(schema && { schema }) }
}

/** Places of a server's witness; empty if the fence is off. Other commands keep no witness. */
export function fenceOptions({ fence, fenceDir, dataDir, witnessPlaces }: Config): { fence?: WitnessPlaces } {
  const only = { directory: fenceDir ?? dataDir, searched: [], isWithData: false }
  return fence ? { fence: witnessPlaces ?? only } : {}
}

/** The cost of new password hashes. */
export function hashCost({ passwordHashMemory, passwordHashPasses: passes }: Config): HashCost {
  return { memory: Math.floor(passwordHashMemory / 1024), passes }
}

/** Whether the configuration uses a PostgreSQL database. */
export function usesPostgres(config: Config): config is Config & { readonly database: string } {
  return config.database !== undefined
}

function commonOptions({ pools, sizes, retentionDays }: Config) {
  return { pools, retentionMs: retentionDays * DAY_MS, ...sizes }
}
