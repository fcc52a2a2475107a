/**
 * Keys that have to be taken off the server, noted in the same durable step in which the ledger gives them up. The note
 * goes only when it is done: failures, crashes, pauses and mode `report` put it off, to the next upload or sync.
 */
import type { KeyName } from '@latchkey/protocol'
import { HEAL_CAUSES, type HealCause } from '../heal/heals.ts'
import { nameOf, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import type { Kind, Transaction, View } from '../store/stored-state.ts'
import type { Target } from './abandon-keys.ts'

type ToWithdraw = { readonly cause: HealCause }

/** By ID of the ledger; `all` stands for everything that the server has, known or not. */
export const TO_WITHDRAW: Kind<ToWithdraw> = {
  name: 'withdraw',
  check: (value): value is ToWithdraw =>
    HEAL_CAUSES.includes((value as Partial<ToWithdraw> | null)?.cause as HealCause),
}
const ALL = 'all'

export function noteToWithdraw(transaction: Transaction, targets: readonly Target[], cause: HealCause): void {
  for (const { id } of targets) if (id !== undefined) transaction.put(TO_WITHDRAW, id, { cause })
}

export function noteAllToWithdraw(transaction: Transaction, cause: HealCause): void {
  transaction.put(TO_WITHDRAW, ALL, { cause })
}

export type Outstanding = {
  readonly cause: HealCause
  readonly isAll: boolean
  readonly targets: readonly Target[]
}

/** What is still to be withdrawn; undefined when nothing is. */
export function outstanding(view: View): Outstanding | undefined {
  const noted = view.all(TO_WITHDRAW)
  const first = noted.get(ALL) ?? [...noted.values()][0]
  if (first === undefined) return undefined
  const ids = [...noted.keys()].filter((id) => id !== ALL && !isDone(view, id))
  const isAll = noted.has(ALL)
  const targets = ids.map((id) => ({ name: nameOf(id), id }))
  return isAll || targets.length > 0 ? { cause: first.cause, isAll, targets } : undefined
}

export function forgetToWithdraw(transaction: Transaction, targets: readonly Target[]): void {
  for (const { id } of targets) {
    if (id !== undefined && transaction.get(TO_WITHDRAW, id) !== undefined)
      transaction.delete(TO_WITHDRAW, id)
  }
}

export function forgetAllToWithdraw(transaction: Transaction): void {
  for (const id of transaction.all(TO_WITHDRAW).keys()) transaction.delete(TO_WITHDRAW, id)
}

/** A key is gone, too, when the server has taken another one under its name: it refuses that while it has the first. */
function isDone(view: View, id: string): boolean {
  const record = view.get(ONE_TIME_KEYS, id)
  if (record !== undefined && record.state !== 'lost') return true
  const successor = view.get(ONE_TIME_KEYS, nameOf(id))?.state
  return successor !== undefined && successor !== 'uploading' && successor !== 'unsent'
}

export function namesOf(targets: readonly Target[]): KeyName[] {
  return targets.map(({ name }) => name)
}
