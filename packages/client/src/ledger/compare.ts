/**
 * Compares the server's pool with the ledger: first by digest, which every answer of Latchkey carries; on a mismatch,
 * by the pool that was read. A different digest is a reason to read the pool, never by itself to withdraw
 * (extensions.md).
 */
import {
  type Algorithm,
  base64Url,
  emptyDigest,
  fromBase64Url,
  type KeyName,
  mixIn,
} from '@latchkey/protocol'
import type { PoolOfAlgorithm } from '../server/answers.ts'
import type { Transaction, View } from '../store/stored-state.ts'
import { isPublic, type KeyRecord, ONE_TIME_KEYS } from './key-record.ts'
import { moveTo, publicKeysOf } from './ledger.ts'

/** A pool that the ledger explains. */
export type PoolByDigest = {
  /** Number of keys in the pool. */
  readonly count: number
  /** Ledger keys that have left the pool, in the order of issue. */
  readonly before: readonly [KeyName, KeyRecord][]
  /** Whether the pool includes keys whose upload has no answer yet: the server has them. */
  readonly hasUploading: boolean
}

/**
 * Explains a pool by its digest. Keys leave from the front, so the pool is the last n keys of the ledger, regardless of
 * the count next to the digest. Keys of an unanswered upload may or may not be included.
 *
 * @returns undefined when the ledger does not explain it: other keys, or adopted keys, whose share is unknown
 */
export function poolByDigest(view: View, algorithm: Algorithm, digest: string): PoolByDigest | undefined {
  const keys = publicKeysOf(view, algorithm)
  const settled = keys.filter(([, { state }]) => state !== 'uploading')
  const readings = settled.length === keys.length ? [keys] : [settled, keys]
  for (const reading of readings) {
    const count = lastWithDigest(reading, digest)
    if (count === undefined) continue
    const before = reading.slice(0, reading.length - count)
    return { count, before, hasUploading: reading !== settled && settled.length < keys.length }
  }
  return undefined
}

function lastWithDigest(keys: readonly [KeyName, KeyRecord][], digest: string): number | undefined {
  const sum = emptyDigest()
  for (let count = 0; ; count++) {
    if (base64Url(sum) === digest) return count
    // The share of an adopted key is unknown; without it no longer suffix can be computed.
    const share = keys[keys.length - 1 - count]?.[1].share
    if (share === undefined) return undefined
    mixIn(sum, fromBase64Url(share))
  }
}

/** Result of comparing a pool that was read, in names of one-time keys. */
export type Comparison = {
  /**
   * On the server, but never uploaded by this device: published by another client, or by a newer copy of this store.
   */
  readonly unknown: readonly KeyName[]
  /** On the server, although issued, used or abandoned before: the server was rolled back or accepted them again. */
  readonly spent: readonly KeyName[]
  /** Available according to the ledger, but the server neither has them nor reports them issued. */
  readonly missing: readonly KeyName[]
  /** Newly found to be issued. */
  readonly issued: readonly KeyName[]
}

/**
 * Compares one algorithm's pool with the ledger and updates the ledger: issued keys get the server's time if it is
 * plausible, missing keys become `removed`. Unwanted keys are returned unchanged; the caller decides about them.
 *
 * @param complete whether `pool.issued` lists every issued key; otherwise an unlisted key counts as issued
 */
export function alignWithPool(
  transaction: Transaction,
  algorithm: Algorithm,
  pool: PoolOfAlgorithm,
  { complete, now }: { readonly complete: boolean; readonly now: number },
): Comparison {
  const records = transaction.all(ONE_TIME_KEYS)
  const hashes = new Set([...records.values()].map((record) => record.hash))
  const unknown: KeyName[] = []
  const spent: KeyName[] = []
  const available = new Set<KeyName>()
  for (const { name, hash } of pool.available) {
    available.add(name)
    const record = records.get(name)
    if (record?.hash !== hash) {
      ;(hashes.has(hash) ? spent : unknown).push(name)
    } else if (!isPublic(record)) spent.push(name)
    else if (record.state === 'uploading') {
      moveTo(transaction, ONE_TIME_KEYS, name, 'available', now, { publishedAt: now })
    }
  }
  const issuedThere = new Map(pool.issued.map((key) => [key.hash, key.ts]))
  const missing: KeyName[] = []
  const issued: KeyName[] = []
  for (const [id, record] of records) {
    const name = id as KeyName
    if (!id.startsWith(`${algorithm}:`)) continue
    const issuedTs = issuedThere.get(record.hash)
    // An implausible time shows a wrong server clock, which must not decide when a private half is dropped.
    const isTime =
      issuedTs !== undefined && issuedTs >= (record.publishedAt ?? record.since) && issuedTs <= now
    const issuedAt = isTime ? issuedTs : now
    // Inferred issues are confirmed; the time recorded first stays.
    if (record.inferred === true && issuedTs !== undefined) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt: record.issuedAt ?? issuedAt })
    }
    // A key that is still uploading may not have arrived yet.
    if (available.has(name) || !isPublic(record)) continue
    if (issuedTs === undefined && (record.state === 'uploading' || complete)) {
      if (record.state === 'uploading') continue
      moveTo(transaction, ONE_TIME_KEYS, id, 'removed', now, { detail: 'no longer on the server' })
      missing.push(name)
    } else {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt })
      issued.push(name)
    }
  }
  return { unknown, spent, missing, issued }
}
