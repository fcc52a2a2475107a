/**
 * Decoders of server answers, for every server level. They are lenient: a missing or malformed member is undefined,
 * because a foreign server's answer must never break the client. Sources: client-server API, "End-to-end encryption";
 * MSC4162; Latchkey's members: extensions.md.
 */
import {
  ABSENT,
  CONFLICTS,
  EVICTED,
  FALLBACK_KEY_OUTCOMES,
  FALLBACK_OUTCOMES,
  type FallbackOutcome,
  isJsonObject,
  type JsonObject,
  KEY_POOL,
  type KeyName,
  type KeyPool,
  OUTCOMES,
  SIGNED_CURVE25519,
  STORED_AS,
  UPLOAD_OUTCOMES,
  type UploadOutcome,
  WITHDRAWN,
} from '@latchkey/protocol'

/** Limits on what one answer contributes, so that no server can fill the store. */
export const MAX_ALGORITHMS = 16
const MAX_ALGORITHM_CHARS = 64
const MAX_NAMES = 10_000
const MAX_ID_CHARS = 255
const MAX_HASH_CHARS = 64

/** algorithm -> number of available one-time keys. */
export type Counts = Readonly<Record<string, number>>

/** An answer of `/keys/upload`, or the upload part of an answer of `/keys/reset`. */
export type UploadAnswer = {
  readonly counts: Counts | undefined
  readonly keyPool: KeyPool | undefined
  readonly outcomes: ReadonlyMap<KeyName, UploadOutcome>
  readonly fallbackOutcomes: ReadonlyMap<KeyName, FallbackOutcome>
  readonly storedAs: ReadonlyMap<KeyName, KeyName>
  readonly evicted: readonly KeyName[]
}

export type ResetAnswer = UploadAnswer & {
  readonly withdrawn: readonly KeyName[] | undefined
  readonly absent: readonly KeyName[]
}

/** The part of a sync about the device's own keys. */
export type SyncSignals = {
  readonly counts: Counts | undefined
  readonly unusedFallbackTypes: readonly string[] | undefined
  readonly keyPool: KeyPool | undefined
}

export type PoolKey = { readonly name: KeyName; readonly hash: string; readonly ts: number }

export type PoolOfAlgorithm = {
  readonly digest: string | undefined
  readonly available: readonly PoolKey[]
  readonly issued: readonly PoolKey[]
  readonly fallback: { readonly name: KeyName; readonly hash: string; readonly used: boolean } | undefined
}

export type PoolAnswer = {
  readonly epoch: string
  readonly version: number
  readonly generation: number
  readonly algorithms: ReadonlyMap<string, PoolOfAlgorithm>
  readonly nextBatch: string | undefined
}

/** The two names of the key counts: one in `/keys/upload`, the other everywhere else. */
export const UPLOAD_COUNTS = 'one_time_key_counts'
export const COUNTS = 'device_one_time_keys_count'
const UNUSED_FALLBACK_TYPES = 'device_unused_fallback_key_types'

/** Whether repeating the request would give the same answer. */
export function isFinal(status: number): boolean {
  return status !== 0 && status !== 429 && status < 500
}

/** JSON text that is an object; undefined for anything else. */
export function parseObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return isJsonObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

export function decodeUpload(answer: JsonObject): UploadAnswer {
  return { counts: decodeCounts(answer[UPLOAD_COUNTS]), ...decodeOutcomes(answer) }
}

export function decodeReset(answer: JsonObject): ResetAnswer {
  return {
    counts: decodeCounts(answer[COUNTS]),
    ...decodeOutcomes(answer),
    withdrawn: Array.isArray(answer[WITHDRAWN]) ? decodeNames(answer[WITHDRAWN]) : undefined,
    absent: decodeNames(answer[ABSENT]),
  }
}

/** The signals of `/v3/sync`, or of the `e2ee` extension of a sliding sync. */
export function decodeSignals(answer: JsonObject): SyncSignals {
  const unused = answer[UNUSED_FALLBACK_TYPES]
  return {
    counts: decodeCounts(answer[COUNTS]),
    unusedFallbackTypes: Array.isArray(unused)
      ? unused.filter((type) => typeof type === 'string')
      : undefined,
    keyPool: decodeKeyPool(answer[KEY_POOL]),
  }
}

/** An answer of `dev.latchkey/keys/pool`; undefined when malformed. */
export function decodePool(answer: JsonObject): PoolAnswer | undefined {
  const { epoch, version, generation, algorithms, next_batch: nextBatch } = answer
  if (typeof epoch !== 'string' || typeof version !== 'number' || typeof generation !== 'number')
    return undefined
  if (!isJsonObject(algorithms)) return undefined
  const pools = Object.entries(algorithms).map(
    ([algorithm, pool]) => [algorithm, decodePoolOf(algorithm, pool)] as const,
  )
  return {
    epoch,
    version,
    generation,
    algorithms: new Map(pools),
    nextBatch: typeof nextBatch === 'string' ? nextBatch : undefined,
  }
}

/**
 * The names for which an upload was refused because the server has other keys under them; undefined when the answer is
 * not a conflict. Latchkey lists them all; Synapse names one in its error text.
 */
export function decodeConflict(status: number, answer: JsonObject): readonly KeyName[] | undefined {
  if (status !== 400) return undefined
  const listed = answer[CONFLICTS]
  if (isJsonObject(listed)) return decodeNames(Object.keys(listed))
  const { error } = answer
  if (typeof error !== 'string') return undefined
  const [, name] = /^One time key (\S+) already exists/.exec(error) ?? []
  return isName(name) ? [name] : undefined
}

export function decodeKeyPool(value: unknown): KeyPool | undefined {
  if (!isJsonObject(value)) return undefined
  const { epoch, version, generation, digest, fallback } = value
  if (typeof epoch !== 'string' || typeof version !== 'number' || typeof generation !== 'number')
    return undefined
  return {
    epoch,
    version,
    generation,
    digest: Object.fromEntries(ofFewAlgorithms(Object.entries(textMembers(digest)))),
    fallback: Object.fromEntries(ofFewAlgorithms(Object.entries(textMembers(fallback)))),
  }
}

function decodeOutcomes(answer: JsonObject): Omit<UploadAnswer, 'counts'> {
  return {
    keyPool: decodeKeyPool(answer[KEY_POOL]),
    outcomes: oneOf(answer[OUTCOMES], UPLOAD_OUTCOMES),
    fallbackOutcomes: oneOf(answer[FALLBACK_OUTCOMES], FALLBACK_KEY_OUTCOMES),
    storedAs: new Map(Object.entries(textMembers(answer[STORED_AS])) as [KeyName, KeyName][]),
    evicted: decodeNames(answer[EVICTED]),
  }
}

function decodePoolOf(algorithm: string, pool: unknown): PoolOfAlgorithm {
  const { digest, available, issued, fallback } = isJsonObject(pool) ? pool : {}
  const current = decodePoolKey(algorithm, fallback)
  return {
    digest: typeof digest === 'string' ? digest : undefined,
    available: decodePoolKeys(algorithm, available),
    issued: decodePoolKeys(algorithm, issued),
    fallback: current && { ...current, used: isJsonObject(fallback) && fallback['used'] === true },
  }
}

function decodePoolKeys(algorithm: string, value: unknown): PoolKey[] {
  if (!Array.isArray(value)) return []
  return value.map((key: unknown) => decodePoolKey(algorithm, key)).filter((key) => key !== undefined)
}

function decodePoolKey(algorithm: string, value: unknown): PoolKey | undefined {
  if (!isJsonObject(value)) return undefined
  const { key_id: id, key_hash: hash, uploaded_ts: uploadedTs, issued_ts: issuedTs } = value
  if (typeof id !== 'string' || typeof hash !== 'string') return undefined
  if (id.length > MAX_ID_CHARS || hash.length > MAX_HASH_CHARS) return undefined
  const ts = typeof uploadedTs === 'number' ? uploadedTs : issuedTs
  return { name: `${algorithm}:${id}` as KeyName, hash, ts: typeof ts === 'number' ? ts : 0 }
}

function decodeCounts(value: unknown): Counts | undefined {
  if (!isJsonObject(value)) return undefined
  const counts = Object.entries(value).filter(
    (entry): entry is [string, number] => Number.isSafeInteger(entry[1]) && Number(entry[1]) >= 0,
  )
  return Object.fromEntries(ofFewAlgorithms(counts))
}

/** Limits the number of algorithms, because they are stored. `signed_curve25519` is always kept. */
function ofFewAlgorithms<T>(members: readonly [string, T][]): [string, T][] {
  const isMain = ([algorithm]: [string, T]): boolean => algorithm === SIGNED_CURVE25519
  const others = members.filter((member) => !isMain(member) && member[0].length <= MAX_ALGORITHM_CHARS)
  return [...members.filter(isMain), ...others].slice(0, MAX_ALGORITHMS)
}

function decodeNames(value: unknown): KeyName[] {
  if (!Array.isArray(value)) return []
  return value.filter(isName).slice(0, MAX_NAMES)
}

function isName(name: unknown): name is KeyName {
  return typeof name === 'string' && name.length <= MAX_ALGORITHM_CHARS + MAX_ID_CHARS
}

function textMembers(value: unknown): Record<string, string> {
  if (!isJsonObject(value)) return {}
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  )
}

function oneOf<T extends string>(value: unknown, allowed: readonly T[]): Map<KeyName, T> {
  const members = Object.entries(textMembers(value)).filter((entry): entry is [string, T] =>
    allowed.includes(entry[1] as T),
  )
  return new Map(members as [KeyName, T][])
}
