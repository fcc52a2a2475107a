/**
 * The table of configuration keys: path in the YAML file, variable, flag, kind, default and meaning. The mapped types
 * require a key for every member of Config; docs/reference/configuration.md has the same table, and a test compares the
 * two.
 */
import { DEFAULT_COST, MAX_COST } from '../accounts/password-hash.ts'
import type { BucketRate } from '../lib/token-bucket.ts'
import { type Config, DEFAULT_CONFIG, DEFAULT_RATES, type RateLimits, type SizeLimits } from './config.ts'
import {
  bytes,
  choice,
  duration,
  type Kind,
  onOff,
  perMinute,
  plainText,
  postgresUrl,
  proxies,
  whole,
} from './kinds.ts'
import { isServerName } from './server-name.ts'

export type Key<T> = {
  /** In the YAML file; dots are nesting. */
  readonly path: string
  readonly variable: string
  readonly flag?: Flag
  readonly kind: Kind<T>
  readonly default?: T
  readonly meaning: string
}

export type Flag = {
  /** `--host`. */
  readonly name: string
  /** Placeholder of the value in the help; a flag without one is a switch that means `on`. */
  readonly value?: string
}

type Keys<T> = { readonly [Name in keyof T]-?: Key<Required<T>[Name]> }
type RateKeys = { readonly [Name in keyof RateLimits]: Keys<BucketRate> }

const KIB = 1024
const MIB = 1024 * KIB
const SECOND_MS = 1000
const HOUR_MS = 3600 * SECOND_MS

/** The configuration file: a flag and a variable, but not a key in the file. */
export const CONFIG_FILE = { flag: { name: '--config', value: 'FILE' }, variable: 'LATCHKEY_CONFIG' } as const

const HOST = plainText('an IP address or a host name', (value) => /^[0-9A-Za-z.:%_-]{1,255}$/.test(value))

const { pools, sizes } = DEFAULT_CONFIG

export const GENERAL_KEYS: Keys<Omit<Config, 'witnessPlaces' | 'pools' | 'rates' | 'sizes'>> = {
  serverName: key(
    'server_name',
    plainText('a server name such as example.org or example.org:8448', isServerName),
    undefined,
    'The part of user IDs after the colon. Fixed at the first start (`localhost` if not set); later starts may omit it.',
    { name: '--server-name', value: 'NAME' },
  ),
  host: key(
    'host',
    HOST,
    DEFAULT_CONFIG.host,
    'The address to listen on. `0.0.0.0` or `::` for all; then put a TLS proxy in front.',
    { name: '--host', value: 'ADDRESS' },
  ),
  port: key(
    'port',
    whole(0, 65_535),
    DEFAULT_CONFIG.port,
    'The port to listen on; 0 selects a free one, which the ready line prints.',
    {
      name: '--port',
      value: 'PORT',
    },
  ),
  workers: key(
    'workers',
    whole(1, 64),
    DEFAULT_CONFIG.workers,
    'Processes that serve this address together, over one PostgreSQL database; the embedded database allows one.',
    { name: '--workers', value: 'N' },
  ),
  dataDir: key(
    'data',
    plainText('the path of a directory', (value) => value !== '' && !value.includes('\0')),
    DEFAULT_CONFIG.dataDir,
    'The directory of the embedded database. In the file, relative to the file; otherwise relative to the working directory.',
    { name: '--data', value: 'DIR' },
  ),
  database: key(
    'database',
    postgresUrl(),
    undefined,
    'The PostgreSQL database to use instead of the embedded one; `?schema=NAME` selects another schema than the default of the role. Shown without its password.',
    { name: '--database', value: 'URL' },
  ),
  databaseConnections: key(
    'database_connections',
    whole(2, 1000),
    DEFAULT_CONFIG.databaseConnections,
    'Connections of one process to PostgreSQL; one more listens for wakes.',
  ),
  fence: key(
    'fence',
    onOff(),
    DEFAULT_CONFIG.fence,
    'Keep a witness outside the database, which detects a restored backup or a lagging replica immediately; costs a second fsync.',
    { name: '--fence', value: 'on|off' },
  ),
  fenceDir: key(
    'fence_dir',
    plainText('the path of a directory', (value) => value !== '' && !value.includes('\0')),
    undefined,
    'The directory of the witness; relative paths as for `data`. If not set: where one lies already, `$STATE_DIRECTORY` of systemd, or the XDG state directory (operating guide). Use a durable disk that is never restored together with the database.',
    { name: '--fence-dir', value: 'DIR' },
  ),
  registration: key(
    'registration',
    choice(['open', 'token', 'closed']),
    DEFAULT_CONFIG.registration,
    'The users who may create an account over the network: all, holders of a registration token, or none.',
    { name: '--registration', value: 'WHO' },
  ),
  openRegistrationConfirmed: key(
    'allow_open_registration',
    onOff(),
    DEFAULT_CONFIG.openRegistrationConfirmed,
    'The confirmation that `registration: open` requires on an address that is not loopback.',
    { name: '--allow-open-registration' },
  ),
  accessTokenLifetimeMs: key(
    'access_token_lifetime',
    duration(60 * SECOND_MS, 8760 * HOUR_MS),
    undefined,
    'The time after which an access token expires. Clients that ask for refresh tokens renew it; others log in again, on the same device and with its keys. If not set, access tokens do not expire.',
  ),
  passwordMinLength: key(
    'password_min_length',
    whole(6, 128),
    DEFAULT_CONFIG.passwordMinLength,
    'Minimum length of a new password, in characters.',
  ),
  passwordHashMemory: key(
    'password_hash_memory',
    bytes(DEFAULT_COST.memory * KIB, MAX_COST.memory * KIB),
    DEFAULT_CONFIG.passwordHashMemory,
    'Memory of a new password hash (argon2id); two are made at once. Raised values take effect at the next login of a user.',
  ),
  passwordHashPasses: key(
    'password_hash_passes',
    whole(DEFAULT_COST.passes, MAX_COST.passes),
    DEFAULT_CONFIG.passwordHashPasses,
    'Passes over the memory of a new password hash.',
  ),
  retentionDays: key(
    'retention_days',
    whole(1, 36_500),
    DEFAULT_CONFIG.retentionDays,
    'Days for which the details of keys that left, and the memory of removed devices, are kept.',
  ),
  trustProxy: key(
    'trust_proxy',
    proxies(),
    DEFAULT_CONFIG.trustProxy,
    "Take the client's address from `X-Forwarded-For`, as appended by this number of proxies, or by the proxies at these addresses.",
  ),
  stableReset: key(
    'stable_reset',
    onOff(),
    DEFAULT_CONFIG.stableReset,
    'Serve `/keys/reset` under `/v3` too, although MSC4162 is not accepted yet.',
  ),
  logLevel: key(
    'log_level',
    choice(['debug', 'info', 'warn', 'error', 'silent']),
    DEFAULT_CONFIG.logLevel,
    'The least severe log entries to write.',
    { name: '--log-level', value: 'LEVEL' },
  ),
  securityLog: key(
    'security_log',
    plainText('on, off or the path of a file', (value) => value !== '' && !value.includes('\0')),
    DEFAULT_CONFIG.securityLog,
    'The place of the security log, at any log level: with the log on stderr, nowhere, or appended to a file, whose path is relative as for `data`.',
    { name: '--security-log', value: 'on|off|FILE' },
  ),
  metricsPort: key(
    'metrics_port',
    whole(0, 65_535),
    undefined,
    'The port to serve `GET /metrics` on, for Prometheus; 0 selects a free one. If not set, nothing is counted.',
    { name: '--metrics-port', value: 'PORT' },
  ),
  metricsHost: key(
    'metrics_host',
    HOST,
    DEFAULT_CONFIG.metricsHost,
    'The address to serve the metrics on. They contain no user names and need no token, so restrict access to it.',
  ),
}

/** The policies and size limits of key pools. */
export const POOL_KEYS: Keys<Config['pools']> = {
  onConflict: key(
    'pools.on_conflict',
    choice(['reject', 'heal']),
    pools.onConflict,
    'The answer to an uploaded key ID that is available with other material: refuse it, or purge the pool when the client repeats the upload, a few times a day.',
  ),
  claimOrder: key(
    'pools.claim_order',
    choice(['upload', 'key_id']),
    pools.claimOrder,
    "The order in which keys leave: as uploaded (MSC4225), or the lowest key ID first (MSC4162's wording).",
  ),
  verifySignatures: key(
    'pools.verify_signatures',
    onOff(),
    pools.verifySignatures,
    'Refuse uploaded keys whose signature by the device does not verify.',
  ),
  keysPerRequest: key(
    'limits.keys_per_request',
    whole(1, 10_000),
    pools.keysPerRequest,
    'One-time keys in one upload.',
  ),
  keysPerPool: key(
    'limits.keys_per_pool',
    whole(10, 100_000),
    pools.keysPerPool,
    'Available one-time keys per device and algorithm; over it the oldest are evicted.',
  ),
  algorithmsPerDevice: key(
    'limits.algorithms_per_device',
    whole(1, 1000),
    pools.algorithmsPerDevice,
    'Key algorithms per device.',
  ),
  keyIdBytes: key('limits.key_id_bytes', bytes(16, KIB), pools.keyIdBytes, 'Length of a key ID.'),
  keyObjectBytes: key(
    'limits.key_object_bytes',
    bytes(KIB, MIB),
    pools.keyObjectBytes,
    'Size of one uploaded key object of `curve25519` or `signed_curve25519`.',
  ),
  otherKeyObjectBytes: key(
    'limits.other_key_object_bytes',
    bytes(KIB, MIB),
    pools.otherKeyObjectBytes,
    'Size of one uploaded key object of any other algorithm.',
  ),
  devicesPerClaim: key(
    'limits.devices_per_claim',
    whole(1, 100_000),
    pools.devicesPerClaim,
    'Devices in one claim.',
  ),
  keysPerDeviceAndDay: key(
    'rates.keys_per_device_and_day',
    whole(0, 10_000_000, '; 0 means unlimited'),
    pools.keysPerDeviceAndDay,
    'Keys stored per device within 24 hours; 0 means unlimited.',
  ),
  keysPerUserAndDay: key(
    'rates.keys_per_user_and_day',
    whole(0, 100_000_000, '; 0 means unlimited'),
    pools.keysPerUserAndDay,
    'Keys stored by all devices of a user within 24 hours, removed devices included; 0 means unlimited.',
  ),
  keyBytesPerUserAndDay: key(
    'rates.key_bytes_per_user_and_day',
    bytes(0, 1024 * 1024 * MIB),
    pools.keyBytesPerUserAndDay,
    'Names and objects of the keys stored by all devices of a user within 24 hours, removed devices included; 0 means unlimited.',
  ),
  healsPerDeviceAndDay: key(
    'rates.heals_per_device_and_day',
    whole(0, 1_000_000, '; 0 means unlimited'),
    pools.healsPerDeviceAndDay,
    'Conflicts of a device that are healed within 24 hours (`pools.on_conflict: heal`); over it they are refused. 0 means unlimited.',
  ),
}

export const SIZE_KEYS: Keys<SizeLimits> = {
  bodyBytes: key(
    'limits.body_bytes',
    bytes(64 * KIB, 100 * MIB),
    sizes.bodyBytes,
    "A request's body, where it may be large; most endpoints take no more than 64 KiB.",
  ),
  bodyBytesInFlight: key(
    'limits.body_bytes_in_flight',
    bytes(100 * MIB, 64 * 1024 * MIB),
    sizes.bodyBytesInFlight,
    'Bodies of all requests while they arrive; a quarter of it for requests without an access token.',
  ),
  answerBytesInFlight: key(
    'limits.answer_bytes_in_flight',
    bytes(64 * MIB, 64 * 1024 * MIB),
    sizes.answerBytesInFlight,
    'Answers that clients have not read yet; over it the user with the most of them is disconnected.',
  ),
  answerBytesPerUser: key(
    'limits.answer_bytes_per_user',
    bytes(4 * MIB, 64 * 1024 * MIB),
    sizes.answerBytesPerUser,
    'Answers that the clients of one user have not read yet; over it the requests of this user are refused with 429.',
  ),
  answerTimeoutMs: key(
    'limits.answer_timeout',
    duration(SECOND_MS, HOUR_MS),
    sizes.answerTimeoutMs,
    'Time after which a client that takes nothing of its answer is disconnected.',
  ),
  jsonDepth: key('limits.json_depth', whole(8, 1000), sizes.jsonDepth, 'Nesting of a JSON body.'),
  jsonValues: key(
    'limits.json_values',
    whole(1000, 10_000_000),
    sizes.jsonValues,
    'Objects, arrays, strings, numbers and literals in a JSON body; at most 20000 where that is plenty.',
  ),
  toDeviceBytes: key(
    'limits.to_device_bytes',
    bytes(KIB, MIB),
    sizes.toDeviceBytes,
    'Content of one to-device message.',
  ),
  inboxMessages: key(
    'limits.inbox_messages',
    whole(100, 1_000_000),
    sizes.inboxMessages,
    'Undelivered to-device messages per device; over it the oldest of the user who sent the most are evicted.',
  ),
  inboxLength: key(
    'limits.inbox_bytes',
    bytes(MIB, 1024 * MIB),
    sizes.inboxLength,
    'To-device messages waiting for one device, as JSON; over it the oldest of the user with the most are evicted.',
  ),
  toDevicePerSync: key(
    'limits.to_device_per_sync',
    whole(1, 1000),
    sizes.toDevicePerSync,
    'To-device messages in one sync answer.',
  ),
  syncPageBytes: key(
    'limits.sync_page_bytes',
    bytes(64 * KIB, 100 * MIB),
    sizes.syncPageBytes,
    'To-device messages in one sync answer, and account data in one; the item that reaches it is the last.',
  ),
  waitingSyncs: key(
    'limits.waiting_syncs',
    whole(1, 1_000_000),
    sizes.waitingSyncs,
    'Syncs that wait at the same time; over it the user with the most of them gives way.',
  ),
  waitingSyncsPerUser: key(
    'limits.waiting_syncs_per_user',
    whole(1, 1_000_000),
    sizes.waitingSyncsPerUser,
    'Syncs of one user that wait at the same time; over it the oldest is answered after 5 s, and at twice as many they are refused with 429.',
  ),
  waitingSyncsPerDevice: key(
    'limits.waiting_syncs_per_device',
    whole(1, 1000),
    sizes.waitingSyncsPerDevice,
    'Syncs of one device that wait at the same time; over it the oldest is answered after 5 s, and at twice as many they are refused with 429.',
  ),
  syncTimeoutMs: key(
    'limits.sync_timeout',
    duration(SECOND_MS, HOUR_MS),
    sizes.syncTimeoutMs,
    'Maximum time that a sync waits, regardless of the `timeout` that it requests.',
  ),
  requestTimeoutMs: key(
    'limits.request_timeout',
    duration(SECOND_MS, HOUR_MS),
    sizes.requestTimeoutMs,
    "Maximum time for a request's head and body to arrive.",
  ),
  connections: key('limits.connections', whole(10, 1_000_000), sizes.connections, 'Open connections.'),
  accountDataBytes: key(
    'limits.account_data_bytes',
    bytes(KIB, 10 * MIB),
    sizes.accountDataBytes,
    'One piece of account data.',
  ),
  accountDataTypesPerUser: key(
    'limits.account_data_types_per_user',
    whole(1, 1_000_000),
    sizes.accountDataTypesPerUser,
    'Types of account data of one user.',
  ),
  accountDataTotalBytes: key(
    'limits.account_data_total_bytes',
    bytes(64 * KIB, 100 * MIB),
    sizes.accountDataTotalBytes,
    'All account data of one user.',
  ),
  filterBytes: key('limits.filter_bytes', bytes(KIB, MIB), sizes.filterBytes, 'One stored sync filter.'),
  filtersPerUser: key(
    'limits.filters_per_user',
    whole(1, 100_000),
    sizes.filtersPerUser,
    'Stored sync filters of one user.',
  ),
  devicesPerUser: key(
    'limits.devices_per_user',
    whole(1, 100_000),
    sizes.devicesPerUser,
    'Devices of one user.',
  ),
  requestsInFlightPerDevice: key(
    'rates.requests_in_flight_per_device',
    whole(1, 10_000),
    sizes.requestsInFlightPerDevice,
    'Requests of one device that one process works on at the same time; further ones wait, except syncs.',
  ),
  requestsInFlightPerUser: key(
    'rates.requests_in_flight_per_user',
    whole(1, 10_000),
    sizes.requestsInFlightPerUser,
    'Requests of one user that one process works on at the same time; of large ones it works on one.',
  ),
}

/** Enables all keys under `rates`; size limits always apply. */
export const RATES_ENABLED: Key<boolean> = {
  ...key(
    'rates.enabled',
    onOff(),
    true,
    'Off disables every rate limit and daily budget; for tests and benchmarks. Size limits still apply.',
    { name: '--limits', value: 'on|off' },
  ),
  variable: 'LATCHKEY_LIMITS',
}

export const RATE_KEYS: RateKeys = {
  loginPerAddress: rate(
    'login_per_address',
    DEFAULT_RATES.loginPerAddress,
    'Logins from one address; an IPv6 /56 has twice and a /48 four times as much',
  ),
  loginPerAccount: rate(
    'login_per_account',
    DEFAULT_RATES.loginPerAccount,
    'Logins to one account from one address (twice and four times as above), and confirmations by password of one user',
  ),
  loginPerAccountInAll: rate(
    'login_per_account_in_all',
    DEFAULT_RATES.loginPerAccountInAll,
    'Logins to one account from all addresses together; a client that the account knows is exempt',
  ),
  registrationPerAddress: rate(
    'registration_per_address',
    DEFAULT_RATES.registrationPerAddress,
    'Registrations from one address (twice and four times as above)',
  ),
  resetPerDevice: rate('reset_per_device', DEFAULT_RATES.resetPerDevice, 'Key resets of one device'),
  claimPerTarget: rate(
    'claim_per_target',
    DEFAULT_RATES.claimPerTarget,
    'One-time keys of one device that one user may claim; another server may claim ten times as many; over it the fallback key is returned',
  ),
  toDeviceDeliveriesPerUser: rate(
    'to_device_deliveries_per_user',
    DEFAULT_RATES.toDeviceDeliveriesPerUser,
    'To-device messages of one user, counted once for each device that receives them',
  ),
  toDeviceKibPerUser: rate(
    'to_device_kib_per_user',
    DEFAULT_RATES.toDeviceKibPerUser,
    'KiB of to-device messages of one user, counted once for each device that receives them',
  ),
  workPerUser: rate(
    'work_per_user',
    DEFAULT_RATES.workPerUser,
    'Work of one process for one user, in units of about 10 us of its thread',
  ),
  workPerAddress: rate(
    'work_per_address',
    DEFAULT_RATES.workPerAddress,
    'Work of one process for requests without an access token from one address, in the same units',
  ),
}

/** In the order of the reference table. */
export const ALL_KEYS: readonly Key<unknown>[] = [
  ...Object.values<Key<unknown>>(GENERAL_KEYS),
  ...section('pools.'),
  ...section('limits.'),
  RATES_ENABLED,
  ...section('rates.'),
  ...Object.values(RATE_KEYS).flatMap((keys) => Object.values<Key<unknown>>(keys)),
]

/** Keys by section: the reference groups them by purpose, Config by module. */
function section(prefix: string): Key<unknown>[] {
  const keys = [...Object.values<Key<unknown>>(POOL_KEYS), ...Object.values<Key<unknown>>(SIZE_KEYS)]
  return keys.filter(({ path }) => path.startsWith(prefix))
}

function key<T>(
  path: string,
  kind: Kind<T>,
  value: NoInfer<T> | undefined,
  meaning: string,
  flag?: Flag,
): Key<T> {
  const variable = `LATCHKEY_${path.toUpperCase().replaceAll('.', '_')}`
  return {
    path,
    variable,
    kind,
    meaning,
    ...(value !== undefined && { default: value }),
    ...(flag && { flag }),
  }
}

function rate(name: string, value: BucketRate, what: string): Keys<BucketRate> {
  return {
    burst: key(`rates.${name}.burst`, whole(1, 1_000_000), value.burst, `${what}: burst size.`),
    perSecond: key(
      `rates.${name}.per_minute`,
      perMinute(0.001, 1_000_000),
      value.perSecond,
      `${what}: refill per minute.`,
    ),
  }
}
