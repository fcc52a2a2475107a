/**
 * Giving up keys whose private halves are gone although the ledger has them: the SDK's store went back, or was replaced.
 * An SDK generates a batch at once, so a store that lost one key of a batch lost the batch and all later ones.
 */
import type { KeyName } from '@latchkey/protocol'
import { isPublic, type KeyRecord, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import type { HashedKey } from '../ledger/ledger.ts'
import type { Transaction, View } from '../store/stored-state.ts'

/** A key that the server may have, and the ledger's record of it if there is one. */
export type WithdrawalTarget = { readonly name: KeyName; readonly id: string | undefined }

/** Names that the ledger has, and that are now offered with other keys: an SDK never gives an ID to a second key. */
export function reusedNames(view: View, keys: readonly HashedKey[]): KeyName[] {
  return keys
    .filter(({ name, hash }) => {
      const record = view.get(ONE_TIME_KEYS, name)
      return record !== undefined && record.hash !== hash && record.state !== 'lost'
    })
    .map(({ name }) => name)
}

/**
 * Gives up every key of the ledger of the earliest batch among `names` and of all later ones. Their names become free:
 * what the SDK publishes under them from now on is new. Returns those that the server may still issue.
 */
export function abandonSince(
  transaction: Transaction,
  names: readonly KeyName[],
  now: number,
): WithdrawalTarget[] {
  const batches = names.map((name) => transaction.get(ONE_TIME_KEYS, name)?.batch ?? Number.POSITIVE_INFINITY)
  const earliest = Math.min(...batches)
  return abandonKeys(transaction, ({ batch }) => batch >= earliest, now, "the SDK's store went back")
}

/** Gives up every key of the ledger. */
export function abandonAll(transaction: Transaction, now: number, cause: string): WithdrawalTarget[] {
  return abandonKeys(transaction, () => true, now, cause)
}

function abandonKeys(
  transaction: Transaction,
  isAbandoned: (record: KeyRecord) => boolean,
  now: number,
  cause: string,
): WithdrawalTarget[] {
  const targets: WithdrawalTarget[] = []
  for (const [id, record] of transaction.all(ONE_TIME_KEYS)) {
    if (id.includes('~') || !isAbandoned(record)) continue
    const aside = `${id}~${record.hash.slice(0, 8)}`
    const { share: _share, ...rest } = record
    const lost = { ...rest, state: 'lost', since: now, cause } as const
    transaction.delete(ONE_TIME_KEYS, id)
    transaction.put(ONE_TIME_KEYS, aside, wasPublished(record) ? lost : rest)
    if (isPublic(record)) targets.push({ name: id as KeyName, id: aside })
  }
  return targets
}

/** Whether a key was offered and is not known to have come back unissued. */
function wasPublished({ state }: KeyRecord): boolean {
  return state !== 'unsent' && state !== 'withdrawn' && state !== 'lost'
}
