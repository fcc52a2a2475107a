/**
 * Keys that must be withdrawn from the server, recorded in the same durable step in which the ledger abandons them. An
 * entry stays until the withdrawal succeeds: failures, crashes, pauses and mode `report` only postpone it.
 */
import type { KeyName } from '@latchkey/protocol'
import { HEAL_CAUSES, type HealCause } from '../heal/heals.ts'
import { nameOf, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import type { Kind, Transaction, View } from '../store/stored-state.ts'
import type { WithdrawalTarget } from './abandon-keys.ts'

type PendingWithdrawal = { readonly cause: HealCause }

/** By ledger ID; `all` means every key on the server, known or not. */
export const PENDING_WITHDRAWALS: Kind<PendingWithdrawal> = {
  name: 'withdraw',
  check: (value): value is PendingWithdrawal =>
    HEAL_CAUSES.includes((value as Partial<PendingWithdrawal> | null)?.cause as HealCause),
}
const ALL = 'all'

export function addPendingWithdrawals(
  transaction: Transaction,
  targets: readonly WithdrawalTarget[],
  cause: HealCause,
): void {
  for (const { id } of targets) if (id !== undefined) transaction.put(PENDING_WITHDRAWALS, id, { cause })
}

export function addWithdrawAll(transaction: Transaction, cause: HealCause): void {
  transaction.put(PENDING_WITHDRAWALS, ALL, { cause })
}

export type PendingWithdrawals = {
  readonly cause: HealCause
  readonly isAll: boolean
  readonly targets: readonly WithdrawalTarget[]
}

/** Withdrawals that are still due; undefined when there are none. */
export function pendingWithdrawals(view: View): PendingWithdrawals | undefined {
  const noted = view.all(PENDING_WITHDRAWALS)
  const first = noted.get(ALL) ?? [...noted.values()][0]
  if (first === undefined) return undefined
  const ids = [...noted.keys()].filter((id) => id !== ALL && !isDone(view, id))
  const isAll = noted.has(ALL)
  const targets = ids.map((id) => ({ name: nameOf(id), id }))
  return isAll || targets.length > 0 ? { cause: first.cause, isAll, targets } : undefined
}

export function removePendingWithdrawals(
  transaction: Transaction,
  targets: readonly WithdrawalTarget[],
): void {
  for (const { id } of targets) {
    if (id !== undefined && transaction.get(PENDING_WITHDRAWALS, id) !== undefined)
      transaction.delete(PENDING_WITHDRAWALS, id)
  }
}

export function clearPendingWithdrawals(transaction: Transaction): void {
  for (const id of transaction.all(PENDING_WITHDRAWALS).keys()) transaction.delete(PENDING_WITHDRAWALS, id)
}

/** Also done when the server accepted another key under the name, which it refuses while it has the first. */
function isDone(view: View, id: string): boolean {
  const record = view.get(ONE_TIME_KEYS, id)
  if (record !== undefined && record.state !== 'lost') return true
  const successor = view.get(ONE_TIME_KEYS, nameOf(id))?.state
  return successor !== undefined && successor !== 'uploading' && successor !== 'unsent'
}

export function namesOf(targets: readonly WithdrawalTarget[]): KeyName[] {
  return targets.map(({ name }) => name)
}
