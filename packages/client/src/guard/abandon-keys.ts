/**
 * Abandons ledger keys whose private halves are lost because the SDK's store was rolled back or replaced. An SDK
 * generates a batch at once, so a store that lost one key of a batch also lost the rest of it and all later batches.
 */
import type { KeyName } from '@latchkey/protocol'
import { isPublic, type KeyRecord, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import type { HashedKey } from '../ledger/ledger.ts'
import type { Transaction, View } from '../store/stored-state.ts'

/** A key that the server may have, and the ID of its ledger record if there is one. */
export type WithdrawalTarget = { readonly name: KeyName; readonly id: string | undefined }

/** Names in an upload that the ledger has with another key: an SDK never assigns an ID to a second key. */
export function reusedNames(view: View, keys: readonly HashedKey[]): KeyName[] {
  return keys
    .filter(({ name, hash }) => {
      const record = view.get(ONE_TIME_KEYS, name)
      return record !== undefined && record.hash !== hash && record.state !== 'lost'
    })
    .map(({ name }) => name)
}

/**
 * Abandons every ledger key of the earliest batch among `names` and of all later batches. Their names become free for
 * new keys of the SDK. Returns the keys that the server may still issue.
 */
export function abandonSince(
  transaction: Transaction,
  names: readonly KeyName[],
  now: number,
): WithdrawalTarget[] {
  const batches = names.map((name) => transaction.get(ONE_TIME_KEYS, name)?.batch ?? Number.POSITIVE_INFINITY)
  const earliest = Math.min(...batches)
  return abandonKeys(transaction, ({ batch }) => batch >= earliest, now, "the SDK's store was rolled back")
}

/** Abandons every key of the ledger. */
export function abandonAll(transaction: Transaction, now: number, detail: string): WithdrawalTarget[] {
  return abandonKeys(transaction, () => true, now, detail)
}

function abandonKeys(
  transaction: Transaction,
  isAbandoned: (record: KeyRecord) => boolean,
  now: number,
  detail: string,
): WithdrawalTarget[] {
  const targets: WithdrawalTarget[] = []
  for (const [id, record] of transaction.all(ONE_TIME_KEYS)) {
    if (id.includes('~') || !isAbandoned(record)) continue
    const aside = `${id}~${record.hash.slice(0, 8)}`
    const { share: _share, ...rest } = record
    const lost = { ...rest, state: 'lost', since: now, detail } as const
    transaction.delete(ONE_TIME_KEYS, id)
    transaction.put(ONE_TIME_KEYS, aside, wasPublished(record) ? lost : rest)
    if (isPublic(record)) targets.push({ name: id as KeyName, id: aside })
  }
  return targets
}

/** Whether a key was uploaded and is not known to have been taken back unissued. */
function wasPublished({ state }: KeyRecord): boolean {
  return state !== 'unsent' && state !== 'withdrawn' && state !== 'lost'
}
