/**
 * Builders for the rule tables of the key pools. Keys are written `A=a` (key ID and material), `x/A=a` for algorithm
 * `x`, `A=a:issued` with a state. A table row has a device's log, a request, and the log and the answer after it.
 */
import { type Algorithm, keyName, mixIn, parseKeyName, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { KeyId, KeyMaterial } from '@latchkey/protocol'
import { MatrixError } from '../../server/src/matrix-error.ts'
import type {
  ResetCommand,
  ResetResult,
  UploadCommand,
  UploadResult,
} from '../../server/src/pool/commands.ts'
import type { Identity } from '../../server/src/pool/identity.ts'
import { type HashedKey, type KeyState, materialHash, shareOf } from '../../server/src/pool/key.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../server/src/pool/policy.ts'
import { Pool } from '../../server/src/pool/pool.ts'
import type { Decision, PoolFacts, WantedFacts } from '../../server/src/pool/port.ts'
import { type DecidedReset, decideReset, factsForReset } from '../../server/src/pool/reset.ts'
import { SignatureChecks } from '../../server/src/pool/signed-keys.ts'
import { decideUpload, factsForUpload } from '../../server/src/pool/upload.ts'
import type { Session } from '../../server/src/session.ts'
import { loadFacts, type MemoryDevice, newMemoryDevice, newMemoryPool, saveChanges } from './memory-device.ts'

/** Milliseconds since 1970. */
export const NOW = 1_700_000_000_000

export const SESSION = {
  tokenHash: 'token',
  userRef: 1,
  userId: '@alice:test.example',
  deviceRef: 1,
  deviceId: 'ALICEDEV',
} as unknown as Session

/** `A=a`, or `x/A=a` for another algorithm. */
export function key(text: string): HashedKey {
  const [, algorithm = SIGNED_CURVE25519, keyId = '', material = ''] =
    /^(?:([^/]+)\/)?([^=]+)=(.+)$/.exec(text) ?? []
  if (keyId === '') throw new Error(`not a key: ${text}`)
  return {
    algorithm: algorithm as Algorithm,
    keyId: keyId as KeyId,
    material: material as KeyMaterial,
    json: JSON.stringify({ key: material }),
    hash: materialHash(material as KeyMaterial),
  }
}

/** Keys with spaces between them. */
export function keys(text = ''): HashedKey[] {
  return words(text).map(key)
}

/** A device with version 7 and generation 3. */
export function deviceWith({
  log = '',
  fallbacks = '',
  former = '',
  ...rest
}: {
  /** One-time keys in upload order; without a state they are available. */
  readonly log?: string
  /** Fallback keys; `:used` after a claim. */
  readonly fallbacks?: string
  /** Fallback keys that were replaced or purged. */
  readonly former?: string
} & Partial<MemoryDevice>): MemoryDevice {
  const device: MemoryDevice = { ...newMemoryDevice(), version: 7, generation: 3, ...rest }
  const poolOf = (algorithm: Algorithm): ReturnType<typeof newMemoryPool> => {
    const pool = device.pools.get(algorithm) ?? newMemoryPool(algorithm)
    device.pools.set(algorithm, pool)
    return pool
  }
  for (const word of words(log)) {
    const [text, state] = stateOf(word)
    const entry = key(text)
    const pool = poolOf(entry.algorithm)
    pool.log.push({ key: entry, state: (state ?? 'available') as KeyState, ts: 0, leftTs: 0 })
    if (state !== undefined) continue
    pool.count++
    mixIn(pool.digest, shareOf(entry.algorithm, entry.keyId, entry.material))
  }
  for (const word of words(fallbacks)) {
    const [text, state] = stateOf(word)
    const entry = key(text)
    poolOf(entry.algorithm).fallback = { key: entry, used: state === 'used', issueCount: 0 }
  }
  for (const entry of keys(former)) poolOf(entry.algorithm).formerFallbacks.add(entry.hash)
  return device
}

/** The log as `deviceWith` takes it: pool by pool. */
export function logOf({ pools }: MemoryDevice): string {
  const entries = [...pools.values()].flatMap(({ log }) => log)
  return entries
    .map(({ key: { algorithm, keyId, material }, state }) => {
      const prefix = algorithm === SIGNED_CURVE25519 ? '' : `${algorithm}/`
      return `${prefix}${keyId}=${material}${state === 'available' ? '' : `:${state}`}`
    })
    .join(' ')
}

/** The pool of a log, with the facts that a request with these keys may meet. */
export function poolWith(setup: Parameters<typeof deviceWith>[0], wanted: Partial<WantedFacts> = {}): Pool {
  return new Pool(poolFactsOf(setup, wanted), false)
}

export function poolFactsOf(
  setup: Parameters<typeof deviceWith>[0],
  wanted: Partial<WantedFacts> = {},
): PoolFacts {
  const facts = loadFacts(deviceWith(setup), { ...NOTHING_WANTED, ...wanted })
  const [pool] = facts.pools
  if (pool === undefined) throw new Error('the setup has no pool')
  return pool
}

export const NOTHING_WANTED: WantedFacts = {
  oneTimeKeys: [],
  fallbackKeys: [],
  available: [],
  keysPerPool: DEFAULT_POOL_POLICY.keysPerPool,
}

export type RequestSetup = {
  readonly keys?: string
  readonly fallbacks?: string
  readonly now?: number
  readonly policy?: Partial<PoolPolicy>
  /** Identities that the keys of the request were checked against. */
  readonly checked?: readonly Identity[]
}

export type UploadSetup = RequestSetup & {
  /** `ed25519` and `curve25519`. */
  readonly identity?: Identity
  /** The text of the device keys, if it does not follow from the identity. */
  readonly deviceKeys?: string
}

/** Decides an upload on a device. The changes are saved with `save`. */
export function decideUploadOn(device: MemoryDevice, setup: UploadSetup): Decision<UploadResult> {
  const { identity, deviceKeys: json = JSON.stringify(identity) } = setup
  const { policy, checks, ...request } = requestOf(setup)
  const command: UploadCommand = { ...request, ...(identity && { deviceKeys: { json, identity } }) }
  const wanted = factsForUpload(command, policy)
  return decideUpload(command, wanted, policy, checks)(loadFacts(device, wanted))
}

export type ResetSetup = RequestSetup &
  Partial<Pick<ResetCommand, 'ifEpoch' | 'ifGeneration' | 'ifVersion' | 'requestId'>> & {
    /** `all`, or key IDs with spaces between them. */
    readonly withdraw: string
    readonly waitMs?: number
  }

/** Decides a reset on a device. */
export function decideResetOn(device: MemoryDevice, setup: ResetSetup): Decision<DecidedReset> {
  const { withdraw, waitMs = 0, ifEpoch, ifGeneration, ifVersion, requestId } = setup
  const { policy, checks, ...request } = requestOf(setup)
  const command: ResetCommand = {
    ...request,
    withdrawal: withdraw === 'all' ? { all: true } : { all: false, names: words(withdraw).map(nameOf) },
    ...(ifEpoch !== undefined && { ifEpoch }),
    ...(ifGeneration !== undefined && { ifGeneration }),
    ...(ifVersion !== undefined && { ifVersion }),
    ...(requestId !== undefined && { requestId }),
  }
  const wanted = factsForReset(command, policy, waitMs)
  return decideReset(command, wanted, policy, checks, waitMs)(loadFacts(device, wanted))
}

/** Saves what a decision changed; returns its answer. */
export function save<Answer>(device: MemoryDevice, decision: Decision<Answer>): Answer {
  saveChanges(device, decision.changes)
  if (decision.kind === 'refusal') throw decision.refusal
  if (decision.kind === 'verify') throw new Error('signatures must be checked first')
  return decision.answer
}

/** The error of a refusal as `status errcode`; undefined for an answer. */
export function refusalOf(decision: Decision<unknown>): string | undefined {
  return decision.kind === 'refusal' ? errorOf(decision.refusal) : undefined
}

export function errorOf(error: unknown): string {
  if (!(error instanceof MatrixError)) throw error
  return `${error.status} ${error.errcode.replace(/^.*\./, '')}`
}

type Outcomes = Pick<ResetResult, 'outcomes' | 'fallbackOutcomes' | 'storedAs' | 'evicted'>

/** The outcomes in one line: `A stored, B already_stored as C, F fallback stored, D evicted`. */
export function outcomesOf({ outcomes, fallbackOutcomes, storedAs, evicted }: Outcomes): string {
  return [
    ...[...outcomes].map(([name, outcome]) => {
      const as = storedAs.get(name)
      return `${shortName(name)} ${outcome}${as === undefined ? '' : ` as ${shortName(as)}`}`
    }),
    ...[...fallbackOutcomes].map(([name, outcome]) => `${shortName(name)} fallback ${outcome}`),
    ...evicted.map((name) => `${shortName(name)} evicted`),
  ].join(', ')
}

/** Without the algorithm that every client uses. */
export function shortName(name: string): string {
  const parsed = parseKeyName(name)
  return parsed?.algorithm === SIGNED_CURVE25519 ? parsed.keyId : name.replace(':', '/')
}

function requestOf({
  keys: oneTime,
  fallbacks,
  now = NOW,
  policy,
  checked = [],
}: RequestSetup): UploadCommand & { readonly policy: PoolPolicy; readonly checks: SignatureChecks } {
  const oneTimeKeys = keys(oneTime)
  const fallbackKeys = keys(fallbacks)
  const checks = new SignatureChecks([...oneTimeKeys, ...fallbackKeys], SESSION)
  // So few keys are checked within the call.
  for (const identity of checked) void checks.check(identity)
  return {
    session: SESSION,
    oneTimeKeys,
    fallbackKeys,
    now,
    policy: { ...DEFAULT_POOL_POLICY, ...policy },
    checks,
  }
}

function nameOf(text: string): ReturnType<typeof keyName> {
  const { algorithm, keyId } = key(`${text}=any`)
  return keyName(algorithm, keyId)
}

function words(text: string): string[] {
  return text.split(' ').filter((word) => word !== '')
}

function stateOf(word: string): [text: string, state: string | undefined] {
  const [text = '', state] = word.split(':')
  return [text, state]
}
