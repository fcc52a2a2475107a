/**
 * Does the server offer what this device offered? First by digest, which every answer of Latchkey carries; where that
 * disagrees, by reading the pool. A digest that differs is a reason to read the pool, never by itself one to withdraw
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
  /** How many keys it has. */
  readonly count: number
  /** The keys of the ledger that are not in it any more, in the order of issue. */
  readonly before: readonly [KeyName, KeyRecord][]
  /** Whether keys whose upload has no answer yet were counted in: the server has them. */
  readonly hasUploading: boolean
}

/**
 * What a digest says of a pool: keys leave from the front, so the pool is the last so many keys of the ledger, whatever a
 * count beside the digest says. Keys of an upload without an answer may have arrived or not.
 *
 * @returns undefined when the ledger does not explain it: other keys, or adopted ones, whose share is not known
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
    // The share of an adopted key is not known; without it nothing before it can be computed either.
    const share = keys[keys.length - 1 - count]?.[1].share
    if (share === undefined) return undefined
    mixIn(sum, fromBase64Url(share))
  }
}

/** What a reading of the pool found, in names of one-time keys. */
export type Comparison = {
  /** The server would issue them, and this device has never offered them: another installation did, or a newer copy of this one. */
  readonly unknown: readonly KeyName[]
  /** The server would issue them, and they were issued, used or given up before: the server went back, or let them in again. */
  readonly spent: readonly KeyName[]
  /** This device believed them available, and the server neither has them nor says that it issued them. */
  readonly missing: readonly KeyName[]
  /** Issued, and not known to be so until now. */
  readonly issued: readonly KeyName[]
}

/**
 * Holds the ledger against one algorithm's pool, and brings the ledger up to what the server says: keys that were
 * issued get the server's time, if it can be true, keys that are gone become `removed`. Keys that should not be there are left as they are
 * and named; what to do about them is the caller's decision.
 *
 * @param complete whether `pool.issued` lists every issued key; otherwise a key that is not listed counts as issued
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
    // A time that cannot be true shows a wrong clock of the server, which must not decide when a private half goes.
    const isTime =
      issuedTs !== undefined && issuedTs >= (record.publishedAt ?? record.since) && issuedTs <= now
    const issuedAt = isTime ? issuedTs : now
    // What was only concluded is known now; the first time that was noted stays.
    if (record.inferred === true && issuedTs !== undefined) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt: record.issuedAt ?? issuedAt })
    }
    // One that is still uploading may simply not have arrived yet.
    if (available.has(name) || !isPublic(record)) continue
    if (issuedTs === undefined && (record.state === 'uploading' || complete)) {
      if (record.state === 'uploading') continue
      moveTo(transaction, ONE_TIME_KEYS, id, 'removed', now, { cause: 'the server has it no more' })
      missing.push(name)
    } else {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt })
      issued.push(name)
    }
  }
  return { unknown, spent, missing, issued }
}
