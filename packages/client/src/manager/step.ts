/**
 * One durable step of a key manager: a transaction of the state, the account that belongs to it, and the events to emit
 * once it is written. A step may be repeated on newer state, so it changes only its transaction and its account.
 */
import { emit } from '../emit.ts'
import type { ClientEventType, EventDetails, OnEvent } from '../events.ts'
import type { Budget } from '../heal/heals.ts'
import type { OlmAccount, OlmAccounts } from '../olm/olm-account.ts'
import type { StoredState, Transaction, View } from '../store/stored-state.ts'
import { AccountBox } from './account-box.ts'
import { ACCOUNT, type AccountRecord, NEW_STATUS, ONLY, STATUS, type Status } from './records.ts'
import type { Random } from './wire-ids.ts'

/** Settings of a manager, with defaults applied. */
export type Settings = {
  readonly mode: 'off' | 'report' | 'heal'
  readonly budget: Budget
  readonly newKeysPerDay: number
  readonly sessionsPerPeer: number
  readonly sessions: number
  readonly fallbackRotateAfterMs: number
  readonly fallbackGraceMs: number
  readonly now: () => number
  readonly random: Random
}

/** Shared context of a manager: state, Olm accounts, settings. */
export class Core {
  readonly state: StoredState
  readonly accounts: OlmAccounts
  readonly settings: Settings
  readonly box: AccountBox
  readonly #onEvent: OnEvent | undefined

  constructor(state: StoredState, accounts: OlmAccounts, settings: Settings, onEvent: OnEvent | undefined) {
    this.state = state
    this.accounts = accounts
    this.settings = settings
    this.box = new AccountBox(accounts)
    this.#onEvent = onEvent
  }

  /** Runs one step. It is durable when this resolves; its events are emitted afterwards. */
  async update<T>(change: (step: Step) => T): Promise<T> {
    const now = this.settings.now()
    let last: Step | undefined
    const result = await this.state.update((transaction) => {
      const step = new Step(transaction, this, now)
      last = step
      const value = change(step)
      step.finish()
      return value
    })
    for (const emitTo of last?.events ?? []) emitTo(this.#onEvent)
    return result
  }
}

export class Step {
  readonly transaction: Transaction
  readonly settings: Settings
  readonly now: number
  readonly accounts: OlmAccounts
  readonly events: ((onEvent: OnEvent | undefined) => void)[] = []
  readonly #box: AccountBox
  #account: OlmAccount | undefined
  #isChanging = false

  constructor(transaction: Transaction, core: Core, now: number) {
    this.transaction = transaction
    this.settings = core.settings
    this.accounts = core.accounts
    this.now = now
    this.#box = core.box
  }

  get status(): Status {
    return statusOf(this.transaction)
  }

  patch(status: Partial<Status>): void {
    const former = this.status
    const isNews = Object.entries(status).some(([member, value]) => former[member as keyof Status] !== value)
    if (isNews) this.transaction.put(STATUS, ONLY, { ...former, ...status })
  }

  /** The account, for reading. */
  account(): OlmAccount {
    return (this.#account ??= this.#box.of(accountOf(this.transaction).pickle))
  }

  /** The account, for changing: it is pickled once, at the end of the step. */
  accountToChange(): OlmAccount {
    if (!this.#isChanging) {
      this.#account = this.#box.toChange(accountOf(this.transaction).pickle)
      this.#isChanging = true
    }
    return this.account()
  }

  emit<Type extends ClientEventType>(type: Type, details: EventDetails<Type>): void {
    this.events.push((onEvent) => emit(onEvent, this.now, type, details))
  }

  /** Writes a changed account into the transaction. */
  finish(): void {
    if (!this.#isChanging) return
    const record = accountOf(this.transaction)
    this.transaction.put(ACCOUNT, ONLY, { ...record, pickle: this.#box.changed() })
  }
}

export function statusOf(view: View): Status {
  return { ...NEW_STATUS, ...view.get(STATUS, ONLY) }
}

/** The account record, which `KeyManager.open` created. */
export function accountOf(view: View): AccountRecord {
  const record = view.get(ACCOUNT, ONLY)
  if (record === undefined) throw new Error('the store has lost its account: it was emptied while open')
  return record
}
