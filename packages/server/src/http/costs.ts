/**
 * The cost of each endpoint in units of about 10 us of the server's thread (issue 11, C1), measured on SQLite (bench/
 * RESULTS.md). A request pays for itself and its bytes before they are read, for its JSON values before they are
 * parsed, and for what it names before anything walks that (payer.ts). Counts over `max` are a 400, with or without
 * rate limits.
 */
import { isJsonObject } from '@latchkey/protocol'
import type { Config } from '../config/config.ts'
import { invalidParam } from '../matrix-error.ts'
import type { Endpoint } from './endpoint.ts'

export type Cost = {
  /** Paid by every request. */
  readonly request: number
  /** The names that a body may have; each counts, with any value. Outer names come before inner ones. */
  readonly names?: readonly Names[]
  /** Maximum JSON values of the body; `limits.json_values` is the maximum of all. Default: `PLENTY_OF_VALUES`. */
  readonly values?: (config: Config) => number
  /** Longest `retry_after_ms`: SDKs sleep through it. */
  readonly retryWithinMs?: number
  /** The request waits without work, and has limits of its own for that (sync/waiters.ts). */
  readonly waits?: true
}

type Names = {
  /** Completes "the request names 3 ...". */
  readonly what: string
  /** Paid for each. */
  readonly units: number
  /** `body` is decoded and not validated yet. */
  readonly count: (body: unknown) => number
  readonly max?: (config: Config) => number
}

/** A body of this size costs one unit to read and decode, an answer as much to encode and write. */
const BYTES_PER_UNIT = 2048
/** 190 000 small objects take about 300 ms to parse, check and validate. */
const VALUES_PER_UNIT = 8
const PLENTY_OF_VALUES = 20_000
/** A changed device list wakes all users who track it; a rename of one in a mesh of 4 000 wakes 600 syncs. */
const LIST_CHANGE = 1_000
const MAX_USERS_PER_QUERY = 10_000
const MAX_DEVICES_PER_QUERY = 100_000
const MAX_SIGNED_KEYS = 1_000
const MAX_DELETED_DEVICES = 1_000
const MAX_MESSAGES = 10_000
const MAX_NAMED_KEYS = 1_000

const CHEAP: Cost = { request: 5 }
/** Looks passwords up; verifying them has limits of its own. */
const PASSWORD: Cost = { request: 20 }

const KEYS: readonly Names[] = [
  { what: 'one-time keys', units: 10, count: (body) => size(body, 'one_time_keys'), max: keysPerRequest },
  { what: 'fallback keys', units: 10, count: (body) => size(body, 'fallback_keys'), max: keysPerRequest },
  { what: 'device keys', units: LIST_CHANGE, count: (body) => Math.min(1, size(body, 'device_keys')) },
]
const keyValues = ({ pools }: Config): number => Math.max(PLENTY_OF_VALUES, pools.keysPerRequest * 20)

const RESET: Cost = {
  request: 10,
  names: [
    ...KEYS,
    { what: 'key IDs', units: 3, count: (body) => size(body, 'key_ids'), max: () => MAX_NAMED_KEYS },
  ],
  values: keyValues,
  retryWithinMs: 2_000,
}

/** By method and path. */
export const COSTS: Readonly<Record<string, Cost>> = {
  'POST /keys/upload': { request: 10, names: KEYS, values: keyValues, retryWithinMs: 2_000 },
  'POST /keys/reset': RESET,
  'POST /_matrix/client/unstable/org.matrix.msc4162/keys/reset': RESET,
  'POST /keys/claim': {
    request: 6,
    names: [
      { what: 'users', units: 0, count: (body) => size(body, 'one_time_keys'), max: devicesPerClaim },
      { what: 'devices', units: 3, count: (body) => innerSize(body, 'one_time_keys'), max: devicesPerClaim },
    ],
    values: ({ pools }) => Math.max(PLENTY_OF_VALUES, pools.devicesPerClaim * 2 + 1_000),
  },
  'POST /keys/query': {
    request: 6,
    names: [
      { what: 'users', units: 4, count: (body) => size(body, 'device_keys'), max: () => MAX_USERS_PER_QUERY },
      {
        what: 'devices',
        units: 0.1,
        count: (body) => innerSize(body, 'device_keys'),
        max: () => MAX_DEVICES_PER_QUERY,
      },
    ],
    values: () => MAX_USERS_PER_QUERY + MAX_DEVICES_PER_QUERY + 1_000,
  },
  // Deliveries are paid to a bucket of their own (messages/), which key sharing in large rooms needs.
  'PUT /sendToDevice/:eventType/:txnId': {
    request: 6,
    names: [
      { what: 'users', units: 0, count: (body) => size(body, 'messages'), max: () => MAX_MESSAGES },
      { what: 'messages', units: 0, count: (body) => innerSize(body, 'messages'), max: () => MAX_MESSAGES },
    ],
    // An encrypted message has nine values, and a name has one.
    values: () => MAX_MESSAGES * 13,
    retryWithinMs: 2_000,
  },
  'POST /keys/signatures/upload': {
    request: LIST_CHANGE,
    names: [
      { what: 'users', units: 4, count: (body) => size(body), max: () => MAX_SIGNED_KEYS },
      { what: 'signed keys', units: 20, count: (body) => innerSize(body), max: () => MAX_SIGNED_KEYS },
    ],
  },
  'POST /keys/device_signing/upload': { request: LIST_CHANGE },
  'PUT /devices/:deviceId': { request: 5 * LIST_CHANGE },
  'DELETE /devices/:deviceId': { request: LIST_CHANGE },
  'POST /delete_devices': {
    request: LIST_CHANGE,
    names: [
      { what: 'devices', units: 50, count: (body) => size(body, 'devices'), max: () => MAX_DELETED_DEVICES },
    ],
  },
  'POST /refresh': { request: 20 },
  'POST /logout': { request: LIST_CHANGE },
  'POST /logout/all': { request: LIST_CHANGE },
  'POST /account/password': { request: LIST_CHANGE },
  'POST /account/deactivate': { request: LIST_CHANGE },
  'GET /sync': { request: 8, waits: true },
  'GET /keys/changes': { request: 10 },
  'GET /_matrix/client/unstable/dev.latchkey/keys/pool': { request: 20 },
  'GET /devices': { request: 10 },
  'GET /devices/:deviceId': CHEAP,
  'PUT /user/:userId/account_data/:type': { request: 20 },
  'GET /user/:userId/account_data/:type': CHEAP,
  'POST /user/:userId/filter': { request: 20 },
  'GET /user/:userId/filter/:filterId': CHEAP,
  'GET /account/whoami': CHEAP,
  'GET /room_keys/version': CHEAP,
  'GET /pushrules': CHEAP,
  'GET /pushrules/': CHEAP,
  'GET /pushrules/global': CHEAP,
  'GET /pushrules/global/': CHEAP,
  'GET /capabilities': CHEAP,
  'GET /_matrix/client/versions': CHEAP,
  'GET /login': CHEAP,
  'POST /login': PASSWORD,
  'POST /register': PASSWORD,
  'GET /register/available': PASSWORD,
  'GET /health/live': { request: 0 },
  'GET /health/ready': { request: 0 },
}

/** An endpoint that the table lacks is expensive; a test finds it. */
export function costOf({ method, path }: Pick<Endpoint, 'method' | 'path'>): Cost {
  return COSTS[`${method} ${path}`] ?? { request: LIST_CHANGE }
}

export function maxValuesOf({ values }: Cost, config: Config): number {
  return Math.min(values?.(config) ?? PLENTY_OF_VALUES, config.sizes.jsonValues)
}

/** The most names of each kind that a body may have, in words. Undefined: the endpoint limits none. */
export function namesInWords({ names = [] }: Cost, config: Config): string | undefined {
  const limits = names.flatMap(({ what, max }) => (max === undefined ? [] : [`${max(config)} ${what}`]))
  return limits.length === 0 ? undefined : limits.join(' and ')
}

export function unitsOfBytes(bytes: number): number {
  return Math.floor(bytes / BYTES_PER_UNIT)
}

export function unitsOfValues(values: number): number {
  return Math.floor(values / VALUES_PER_UNIT)
}

/**
 * Units of what a body names.
 *
 * @throws {MatrixError} 400 for more names of a kind than are accepted; inner names are not counted then.
 */
export function unitsOfNames({ names = [] }: Cost, body: unknown, config: Config): number {
  let units = 0
  for (const { what, units: each, count, max } of names) {
    const found = count(body)
    const most = max?.(config) ?? found
    if (found > most) {
      throw invalidParam(`The request names ${found} ${what}; at most ${most} ${what} are accepted at once.`)
    }
    units += each * found
  }
  return units
}

function keysPerRequest({ pools }: Config): number {
  return pools.keysPerRequest
}

function devicesPerClaim({ pools }: Config): number {
  return pools.devicesPerClaim
}

/** Members of an object or items of an array: of the body, or of one of its members. 0 for anything else. */
function size(body: unknown, member?: string): number {
  return sizeOf(at(body, member))
}

/** Members and items one level below. */
function innerSize(body: unknown, member?: string): number {
  const outer = at(body, member)
  if (!isJsonObject(outer)) return 0
  return Object.values(outer).reduce<number>((sum, inner) => sum + sizeOf(inner), 0)
}

function at(body: unknown, member: string | undefined): unknown {
  return member === undefined || !isJsonObject(body) ? body : body[member]
}

function sizeOf(value: unknown): number {
  if (Array.isArray(value)) return value.length
  return isJsonObject(value) ? Object.keys(value).length : 0
}
