/**
 * The ledger: every public key that the device uploaded, and its state. Bounded: history is forgotten, oldest first;
 * keys that may still be issued or used never are.
 */
import {
  type Algorithm,
  base64Url,
  compareCodePoints,
  digestText,
  type KeyJson,
  type KeyName,
  materialOf,
  parseKeyName,
} from '@latchkey/protocol'
import type { Kind, Transaction, View } from '../store/stored-state.ts'
import {
  isPublic,
  type KeyRecord,
  type KeyState,
  mayStillBeUsed,
  nameOf,
  ONE_TIME_KEYS,
} from './key-record.ts'

/** Counters of the ledger; they never decrease while the store exists. */
export type LedgerHead = { readonly nextBatch: number; readonly nextOrder: number }

export const LEDGER_HEAD: Kind<LedgerHead> = {
  name: 'ledger',
  check: (value): value is LedgerHead =>
    typeof (value as Partial<LedgerHead> | null)?.nextBatch === 'number' &&
    typeof (value as Partial<LedgerHead>).nextOrder === 'number',
}

const HEAD_ID = 'head'

/** Maximum number of records; history beyond it is forgotten, oldest first. About 150 bytes each: under 1 MB. */
export const MAX_RECORDS = 5_000

/** A key ready to be recorded: hashed beforehand, because updates of the state are synchronous. */
export type HashedKey = {
  readonly name: KeyName
  /** The material: the public key in normal form. */
  readonly key: string
  readonly hash: string
  readonly share: string
}

/** Hashes the keys of an upload, in the order in which MSC4225 servers issue them: by key ID, in code point order. */
export async function hashKeys(keys: Readonly<Record<string, KeyJson>>): Promise<HashedKey[]> {
  const hashed: Promise<HashedKey>[] = []
  for (const [text, json] of Object.entries(keys)) {
    const parsed = parseKeyName(text)
    if (parsed === undefined) continue
    const material = materialOf(json)
    const { algorithm, keyId } = parsed
    hashed.push(
      Promise.all([sha256(material), sha256(digestText(algorithm, keyId, material))]).then(
        ([hash, share]) => ({ name: text as KeyName, key: material, hash, share }),
      ),
    )
  }
  return (await Promise.all(hashed)).toSorted((a, b) => compareCodePoints(a.name, b.name))
}

/** base64url SHA-256 of a public key in any base64 spelling: its identity in pools and ledgers. */
export function hashOf(key: KeyJson): Promise<string> {
  return sha256(materialOf(key))
}

async function sha256(text: string): Promise<string> {
  return base64Url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))))
}

/**
 * Records keys before their upload is sent. If a name is known with other material, the former key moves aside
 * (`name~hash`). A key known with the same material keeps its state, unless it had left the server unissued.
 */
export function recordUploading(
  transaction: Transaction,
  keys: readonly HashedKey[],
  now: number,
  { withKey = false }: { withKey?: boolean } = {},
): void {
  const head = transaction.get(LEDGER_HEAD, HEAD_ID) ?? { nextBatch: 1, nextOrder: 1 }
  let { nextOrder } = head
  for (const { name, key, hash, share } of keys) {
    const known = transaction.get(ONE_TIME_KEYS, name)
    if (known?.hash === hash && known.state !== 'withdrawn' && known.state !== 'unsent') continue
    if (known !== undefined && known.hash !== hash) moveAside(transaction, name, known)
    transaction.put(ONE_TIME_KEYS, name, {
      state: 'uploading',
      since: now,
      hash,
      share,
      ...(withKey && { key }),
      batch: head.nextBatch,
      order: nextOrder++,
    })
  }
  if (nextOrder === head.nextOrder) return
  transaction.put(LEDGER_HEAD, HEAD_ID, { nextBatch: head.nextBatch + 1, nextOrder })
  forgetHistory(transaction)
}

/** A key found on a server, of which nothing else is known. */
export type FoundKey = { readonly name: KeyName; readonly hash: string; readonly uploadedTs?: number }

/** Adopts keys that a server has and no ledger knows (first use in an existing app). Oldest first. */
export function recordAdopted(transaction: Transaction, keys: readonly FoundKey[], now: number): void {
  const head = transaction.get(LEDGER_HEAD, HEAD_ID) ?? { nextBatch: 1, nextOrder: 1 }
  let { nextBatch, nextOrder } = head
  let uploadedTs: number | undefined
  for (const key of keys) {
    // Equal upload times mean one upload, thus one batch.
    if (key.uploadedTs !== uploadedTs) nextBatch++
    uploadedTs = key.uploadedTs
    const record = {
      state: 'available',
      since: now,
      hash: key.hash,
      batch: nextBatch,
      adopted: true,
    } as const
    transaction.put(ONE_TIME_KEYS, key.name, { ...record, order: nextOrder++ })
  }
  transaction.put(LEDGER_HEAD, HEAD_ID, { nextBatch: nextBatch + 1, nextOrder })
}

export const REPLACED_BY_OLDER = 'published by a newer state of the store, which an older one replaced'

/**
 * Records keys on the server that this ledger never saw: a discarded state of the store published them. They explain
 * messages that name them. Recorded only while there is room: the device's own history is more useful.
 */
export function recordLost(transaction: Transaction, keys: readonly FoundKey[], now: number): void {
  const records = transaction.all(ONE_TIME_KEYS)
  const known = new Set([...records.values()].map(({ hash }) => hash))
  const order = generatedSoFar(transaction)
  let room = MAX_RECORDS - records.size
  for (const { name, hash } of keys) {
    if (room <= 0) return
    if (known.has(hash)) continue
    known.add(hash)
    room--
    transaction.put(ONE_TIME_KEYS, `${name}~${hash.slice(0, 8)}`, {
      state: 'lost',
      since: now,
      detail: REPLACED_BY_OLDER,
      hash,
      batch: 0,
      order,
    })
  }
}

/** How many generated keys this ledger has recorded. */
export function generatedSoFar(view: View): number {
  return (view.get(LEDGER_HEAD, HEAD_ID)?.nextOrder ?? 1) - 1
}

/** Moves a key to another state. History keeps what explains it, and drops what only a live key needs. */
export function moveTo(
  transaction: Transaction,
  kind: Kind<KeyRecord>,
  id: string,
  state: KeyState,
  now: number,
  more: Partial<Pick<KeyRecord, 'detail' | 'issuedAt' | 'publishedAt' | 'session' | 'inferred'>> = {},
): void {
  const record = transaction.get(kind, id)
  if (record === undefined || (record.state === state && Object.keys(more).length === 0)) return
  const { detail: _former, inferred: _inferred, ...rest } = record
  const next: KeyRecord = { ...rest, ...more, state, since: record.state === state ? record.since : now }
  if (mayStillBeUsed(next)) transaction.put(kind, id, next)
  else {
    const { share: _share, key: _key, ...history } = next
    transaction.put(kind, id, history)
  }
}

/** The keys of an algorithm that the server may still issue, in the order of issue. */
export function publicKeysOf(view: View, algorithm: Algorithm): [KeyName, KeyRecord][] {
  const found: [KeyName, KeyRecord][] = []
  for (const [id, record] of view.all(ONE_TIME_KEYS)) {
    if (isPublic(record) && id.startsWith(`${algorithm}:`)) found.push([nameOf(id), record])
  }
  return found.sort(([, a], [, b]) => a.order - b.order)
}

/** Finds a record by the hash of its key. Returns its ledger ID too. */
export function findByHash(view: View, kind: Kind<KeyRecord>, hash: string): [string, KeyRecord] | undefined {
  for (const entry of view.all(kind)) if (entry[1].hash === hash) return entry
  return undefined
}

function moveAside(transaction: Transaction, name: KeyName, known: KeyRecord): void {
  const { share: _share, ...rest } = known
  const state = mayStillBeUsed(known) ? 'lost' : known.state
  const detail = mayStillBeUsed(known) ? 'its ID was used for another key' : known.detail
  transaction.put(ONE_TIME_KEYS, `${name}~${known.hash.slice(0, 8)}`, {
    ...rest,
    state,
    ...(detail !== undefined && { detail }),
  })
}

function forgetHistory(transaction: Transaction): void {
  const records = transaction.all(ONE_TIME_KEYS)
  let surplus = records.size - MAX_RECORDS
  if (surplus <= 0) return
  const history = [...records].filter(([, record]) => !mayStillBeUsed(record))
  // Keys that never reached the server explain nothing: they are forgotten first.
  const rank = ({ state, order }: KeyRecord): number => (state === 'unsent' ? -1 / order : order)
  for (const [id] of history.sort(([, a], [, b]) => rank(a) - rank(b))) {
    if (surplus-- <= 0) return
    transaction.delete(ONE_TIME_KEYS, id)
  }
}
