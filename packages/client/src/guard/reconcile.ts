/**
 * Reconciles the ledger with the pool on the server. The first reconciliation adopts: keys that an existing app
 * published before it had a guard are recorded as they are, and never withdrawn for being unknown. After that, keys
 * that only the server has were published by a discarded copy of the stores.
 */
import type { Algorithm, KeyName } from '@latchkey/protocol'
import { alignWithPool } from '../ledger/compare.ts'
import { FALLBACK_KEYS, isPublic, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import {
  generatedSoFar,
  moveTo,
  publicKeysOf,
  recordAdopted,
  recordLost,
  REPLACED_BY_OLDER,
} from '../ledger/ledger.ts'
import type { PoolKey, PoolOfAlgorithm } from '../server/answers.ts'
import { learn, SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { Transaction } from '../store/stored-state.ts'
import type { WithdrawalTarget } from './abandon-keys.ts'
import { guardedDevice, putGuardedDevice } from './guarded-device.ts'
import { MAX_ALGORITHMS } from './context.ts'
import { forgetFallbackKeys } from './upload-payload.ts'
import type { WholePool } from './homeserver-client.ts'

export type Reconciled = {
  /** Number of adopted keys, on the first reconciliation. */
  readonly adopted: number | undefined
  readonly unknown: readonly WithdrawalTarget[]
  readonly spent: readonly WithdrawalTarget[]
  /** Fallback keys that the server issues and the ledger has never seen. */
  readonly unknownFallbacks: readonly KeyName[]
}

/** Issued keys that are adopted, latest first. */
const MAX_ISSUED = 1_000

export function reconcile(transaction: Transaction, pool: WholePool, now: number): Reconciled {
  const pools = [...pool.algorithms].slice(0, MAX_ALGORITHMS) as [Algorithm, PoolOfAlgorithm][]
  const isFirst = guardedDevice(transaction).reconciledAt === undefined
  let adopted = 0
  const unknown: WithdrawalTarget[] = []
  const spent: WithdrawalTarget[] = []
  const unknownFallbacks: KeyName[] = []
  const unwantedPools = new Set<string>()
  for (const [algorithm, ofAlgorithm] of pools) {
    if (isFirst) adopted += adopt(transaction, ofAlgorithm, now)
    const found = alignWithPool(transaction, algorithm, ofAlgorithm, { complete: pool.complete, now })
    if (!isFirst) {
      recordLost(transaction, [...ofAlgorithm.available, ...ofAlgorithm.issued.slice(0, MAX_ISSUED)], now)
    }
    const hashes = new Map(ofAlgorithm.available.map(({ name, hash }) => [name, hash]))
    const target = (name: KeyName): WithdrawalTarget => ({
      name,
      id: ledgerIdOf(transaction, name, hashes.get(name)),
    })
    const unwanted = [...found.unknown, ...found.spent].map(target)
    // Found by an earlier read and not withdrawn since: recorded as lost, but still unknown to the SDK.
    const isUnknown = ({ name, id = name }: WithdrawalTarget): boolean => {
      const { state, detail } = transaction.get(ONE_TIME_KEYS, id) ?? {}
      return found.unknown.includes(name) || (state === 'lost' && detail === REPLACED_BY_OLDER)
    }
    unknown.push(...unwanted.filter(isUnknown))
    spent.push(...unwanted.filter((it) => !isUnknown(it)))
    if (unwanted.length > 0) unwantedPools.add(algorithm)
    putInOrder(transaction, algorithm, ofAlgorithm)
    const { fallback } = ofAlgorithm
    if (fallback !== undefined && noteFallback(transaction, fallback, isFirst, now)) {
      unknownFallbacks.push(fallback.name)
    }
  }
  if (isFirst) putGuardedDevice(transaction, { reconciledAt: now })
  learnPool(transaction, pool, pools, unwantedPools)
  return { adopted: isFirst ? adopted : undefined, unknown, spent, unknownFallbacks }
}

/**
 * Applies the pool that was read as the newest server state. Digests of pools without unwanted keys are correct by
 * definition; the others stay unverified until those keys are withdrawn.
 */
function learnPool(
  transaction: Transaction,
  pool: WholePool,
  pools: readonly [Algorithm, PoolOfAlgorithm][],
  unwanted: ReadonlySet<string>,
): void {
  const { epoch, version, generation } = pool
  const members = <T>(of: (pool: PoolOfAlgorithm) => T | undefined): Record<string, T> =>
    Object.fromEntries(
      pools.flatMap(([algorithm, it]) => {
        const value = of(it)
        return value === undefined ? [] : [[algorithm, value]]
      }),
    )
  const digest = members((it) => it.digest)
  const view = learn(
    transaction.get(SERVER_VIEW, SERVER_VIEW_ID),
    {
      counts: members((it) => it.available.length),
      keyPool: { epoch, version, generation, digest, fallback: members((it) => it.fallback?.hash) },
      begunAt: transaction.generation,
      isChange: false,
    },
    transaction.generation,
  )
  const verified = Object.fromEntries(
    Object.entries(digest).filter(([algorithm]) => !unwanted.has(algorithm)),
  )
  transaction.put(SERVER_VIEW, SERVER_VIEW_ID, { ...view, verified })
}

function adopt(transaction: Transaction, pool: PoolOfAlgorithm, now: number): number {
  const records = transaction.all(ONE_TIME_KEYS)
  const issued = pool.issued
    .slice(0, MAX_ISSUED)
    .filter(({ name }) => !records.has(name))
    .reverse()
  recordAdopted(transaction, issued.map(foundKey), now)
  for (const { name, ts } of issued) moveTo(transaction, ONE_TIME_KEYS, name, 'issued', now, { issuedAt: ts })
  const available = pool.available.filter(({ name }) => !records.has(name))
  recordAdopted(transaction, available.map(foundKey), now)
  for (const { name, hash } of pool.available) {
    const record = transaction.get(ONE_TIME_KEYS, name)
    // A server without pools reports no outcomes; its answer replaces what was inferred.
    if (record?.hash === hash && !isPublic(record)) moveTo(transaction, ONE_TIME_KEYS, name, 'available', now)
  }
  return available.length
}

function foundKey({ name, hash, ts }: PoolKey): { name: KeyName; hash: string; uploadedTs: number } {
  return { name, hash, uploadedTs: ts }
}

function noteFallback(
  transaction: Transaction,
  { name, hash }: Pick<PoolKey, 'name' | 'hash'>,
  isFirst: boolean,
  now: number,
): boolean {
  for (const record of transaction.all(FALLBACK_KEYS).values()) if (record.hash === hash) return false
  const id = transaction.get(FALLBACK_KEYS, name) === undefined ? name : `${name}~${hash.slice(0, 8)}`
  const common = { since: now, hash, batch: 0, order: generatedSoFar(transaction) }
  transaction.put(
    FALLBACK_KEYS,
    id,
    isFirst
      ? { ...common, state: 'available', adopted: true }
      : { ...common, state: 'lost', detail: REPLACED_BY_OLDER },
  )
  forgetFallbackKeys(transaction)
  return !isFirst
}

/** Restores the server's order of issue in the ledger, where lost answers changed it. */
function putInOrder(transaction: Transaction, algorithm: Algorithm, { available }: PoolOfAlgorithm): void {
  const place = new Map(available.map(({ name }, index) => [name, index]))
  const keys = publicKeysOf(transaction, algorithm).filter(([name]) => place.has(name))
  const orders = keys.map(([, { order }]) => order)
  keys.sort(([a], [b]) => (place.get(a) ?? 0) - (place.get(b) ?? 0))
  for (const [index, [name, record]] of keys.entries()) {
    const order = orders[index] ?? record.order
    const current = transaction.get(ONE_TIME_KEYS, name)
    if (current !== undefined && current.order !== order) {
      transaction.put(ONE_TIME_KEYS, name, { ...current, order })
    }
  }
}

/** The ledger ID of a key: its name, or the ID under which it was moved aside. */
export function ledgerIdOf(
  transaction: Transaction,
  name: KeyName,
  hash: string | undefined,
): string | undefined {
  if (hash === undefined) return undefined
  if (transaction.get(ONE_TIME_KEYS, name)?.hash === hash) return name
  const aside = `${name}~${hash.slice(0, 8)}`
  return transaction.get(ONE_TIME_KEYS, aside)?.hash === hash ? aside : undefined
}
