/** The checked configuration. docs/reference/configuration.md holds the same keys; a test compares the two. */
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../pool/policy.ts'
import type { BucketRate } from '../lib/token-bucket.ts'

export type Registration = 'open' | 'token' | 'closed'

export type RateLimits = {
  readonly loginPerAddress: BucketRate
  readonly loginPerAccount: BucketRate
  readonly registrationPerAddress: BucketRate
  readonly resetPerDevice: BucketRate
  /** Depletion defence, per claiming user and target device. */
  readonly claimPerTarget: BucketRate
  readonly sendToDevicePerDevice: BucketRate
}

export type SizeLimits = {
  readonly bodyBytes: number
  readonly jsonDepth: number
  /** Canonical bytes of one to-device message's content. */
  readonly toDeviceBytes: number
  /** Undelivered to-device messages per device; beyond it the oldest go. */
  readonly inboxMessages: number
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
  readonly filterBytes: number
  readonly filtersPerUser: number
  readonly devicesPerUser: number
}

export type Config = {
  readonly host: string
  readonly port: number
  readonly dataDir: string
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
  /** Take the client's address from X-Forwarded-For: only behind a proxy that sets it. */
  readonly trustProxy: boolean
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  readonly pools: PoolPolicy
  /** Undefined: no rate limits. */
  readonly rates?: RateLimits
  readonly sizes: SizeLimits
}

export const DEFAULT_RATES: RateLimits = {
  loginPerAddress: { burst: 20, perSecond: 0.2 },
  loginPerAccount: { burst: 10, perSecond: 0.1 },
  registrationPerAddress: { burst: 10, perSecond: 0.05 },
  resetPerDevice: { burst: 10, perSecond: 0.1 },
  claimPerTarget: { burst: 60, perSecond: 1 / 60 },
  sendToDevicePerDevice: { burst: 600, perSecond: 60 },
}

export const DEFAULT_SIZES: SizeLimits = {
  bodyBytes: 10 * 1024 * 1024,
  jsonDepth: 64,
  toDeviceBytes: 65_536,
  inboxMessages: 50_000,
  toDevicePerSync: 100,
  waitingSyncs: 20_000,
  waitingSyncsPerDevice: 8,
  syncTimeoutMs: 5 * 60_000,
  requestTimeoutMs: 60_000,
  connections: 50_000,
  accountDataBytes: 65_536,
  accountDataTypesPerUser: 1000,
  filterBytes: 65_536,
  filtersPerUser: 200,
  devicesPerUser: 1000,
}

export const DEFAULT_CONFIG: Config = {
  host: '127.0.0.1',
  port: 8008,
  dataDir: './latchkey-data',
  registration: 'token',
  openRegistrationConfirmed: false,
  stableReset: true,
  passwordMinLength: 8,
  retentionDays: 90,
  trustProxy: false,
  logLevel: 'warn',
  pools: DEFAULT_POOL_POLICY,
  rates: DEFAULT_RATES,
  sizes: DEFAULT_SIZES,
}

const DAY_MS = 24 * 60 * 60 * 1000

/** What a store needs to know of the configuration. */
export function storeOptions(config: Config) {
  const { dataDir: directory, pools, sizes, retentionDays } = config
  return { directory, pools, retentionMs: retentionDays * DAY_MS, ...sizes }
}
