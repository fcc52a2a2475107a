/**
 * Caches the one unpickled account of a manager. The cache is keyed by the stored pickle: a caller passes the pickle of
 * the current state and gets the account it describes. If writing a change fails, the cached account matches no stored
 * pickle, and the next caller unpickles again (matrix-rust-sdk#3110: a cache must not outlive what it mirrors).
 */
import type { OlmAccount, OlmAccounts } from '../olm/olm-account.ts'

export class AccountBox {
  readonly #accounts: OlmAccounts
  #held: { readonly account: OlmAccount; pickle: string | undefined } | undefined

  constructor(accounts: OlmAccounts) {
    this.#accounts = accounts
  }

  /** The account of a pickle, for reading. */
  of(pickle: string): OlmAccount {
    if (this.#held?.pickle !== pickle) {
      this.free()
      this.#held = { account: this.#accounts.unpickle(pickle), pickle }
    }
    return this.#held.account
  }

  /** The account of a pickle, for changing: until `changed` is called it matches no pickle. */
  toChange(pickle: string): OlmAccount {
    const account = this.of(pickle)
    if (this.#held !== undefined) this.#held.pickle = undefined
    return account
  }

  /** Pickles the changed account, which is cached under this pickle from now on. */
  changed(): string {
    if (this.#held === undefined) throw new Error('no account is being changed')
    return (this.#held.pickle ??= this.#held.account.pickle())
  }

  free(): void {
    this.#held?.account.free()
    this.#held = undefined
  }
}
