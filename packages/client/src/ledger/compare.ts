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

/**
 * What the digest says: `same`, `different`, or `unknown` where the ledger cannot compute it (adopted keys: their hash
 * is known, their share of the digest is not).
 */
export type DigestVerdict = 'same' | 'different' | 'unknown'

/** Whether keys of an upload without an answer are counted in: the server may have them, or not. Default true. */
export type Which = { readonly uploading?: boolean }

/**
 * Compares the digest of a pool of `count` keys with that of the last `count` keys of the ledger in pool order: keys
 * leave from the front, so those are the ones that should be left.
 */
export function compareDigest(
  view: View,
  algorithm: Algorithm,
  count: number,
  digest: string,
  which: Which = {},
): DigestVerdict {
  const left = count === 0 ? [] : expected(view, algorithm, which).slice(-count)
  if (left.length < count) return 'different'
  const sum = emptyDigest()
  for (const [, { share }] of left) {
    if (share === undefined) return 'unknown'
    mixIn(sum, fromBase64Url(share))
  }
  return base64Url(sum) === digest ? 'same' : 'different'
}

/** After a digest was the same: all keys before the last `count` have been issued. Returns how many were news. */
export function noteIssuedByCount(
  transaction: Transaction,
  algorithm: Algorithm,
  count: number,
  now: number,
  which: Which = {},
): number {
  const keys = expected(transaction, algorithm, which)
  const issued = keys.slice(0, Math.max(0, keys.length - count))
  for (const [name] of issued) moveTo(transaction, ONE_TIME_KEYS, name, 'issued', now, { issuedAt: now })
  return issued.length
}

function expected(view: View, algorithm: Algorithm, { uploading = true }: Which): [KeyName, KeyRecord][] {
  const keys = publicKeysOf(view, algorithm)
  return uploading ? keys : keys.filter(([, { state }]) => state !== 'uploading')
}

/** What a reading of the pool found, in names of one-time keys. */
export type Comparison = {
  /** The server would issue them, and this device has never offered them: another installation did, or a newer copy of this one. */
  readonly unknown: readonly KeyName[]
  /** The server would issue them, and they were issued, used or given up before: the server went back, or let them in again. */
  readonly again: readonly KeyName[]
  /** This device believed them available, and the server neither has them nor says that it issued them. */
  readonly gone: readonly KeyName[]
  /** Issued, and not known to be so until now. */
  readonly issued: readonly KeyName[]
}

/**
 * Holds the ledger against one algorithm's pool, and brings the ledger up to what the server says: keys that were
 * issued get the server's time, keys that are gone become `removed`. Keys that should not be there are left as they are
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
  const unknown: KeyName[] = []
  const again: KeyName[] = []
  const available = new Set<KeyName>()
  for (const { name, hash } of pool.available) {
    available.add(name)
    const record = records.get(name)
    if (record?.hash !== hash) {
      const known = [...records.values()].some((other) => other.hash === hash)
      ;(known ? again : unknown).push(name)
    } else if (!isPublic(record)) again.push(name)
    else if (record.state === 'uploading') {
      moveTo(transaction, ONE_TIME_KEYS, name, 'available', now, { publishedAt: now })
    }
  }
  const issuedThere = new Map(pool.issued.map((key) => [key.hash, key.ts]))
  const gone: KeyName[] = []
  const issued: KeyName[] = []
  for (const [id, record] of records) {
    const name = id as KeyName
    if (!id.startsWith(`${algorithm}:`)) continue
    const issuedTs = issuedThere.get(record.hash)
    if (record.state === 'issued' && issuedTs !== undefined) {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt: issuedTs })
    }
    // One that is still uploading may simply not have arrived yet.
    if (available.has(name) || !isPublic(record)) continue
    if (issuedTs === undefined && (record.state === 'uploading' || complete)) {
      if (record.state === 'uploading') continue
      moveTo(transaction, ONE_TIME_KEYS, id, 'removed', now, { cause: 'the server has it no more' })
      gone.push(name)
    } else {
      moveTo(transaction, ONE_TIME_KEYS, id, 'issued', now, { issuedAt: issuedTs ?? now })
      issued.push(name)
    }
  }
  return { unknown, again, gone, issued }
}
