/**
 * The one unpickled account of a manager. It stands for a pickle: whoever asks says which pickle the state has, and gets
 * the account as it is in that pickle. A change whose write failed leaves a box that stands for no stored pickle, and
 * the next one to ask gets the account of the state again (matrix-rust-sdk#3110: caches must not outlive what they mirror).
 */
import type { OlmAccount, OlmAccounts } from '../olm/olm-account.ts'

export class AccountBox {
  readonly #accounts: OlmAccounts
  #held: { readonly account: OlmAccount; pickle: string | undefined } | undefined

  constructor(accounts: OlmAccounts) {
    this.#accounts = accounts
  }

  /** The account of a pickle, to read from. */
  of(pickle: string): OlmAccount {
    if (this.#held?.pickle !== pickle) {
      this.free()
      this.#held = { account: this.#accounts.unpickle(pickle), pickle }
    }
    return this.#held.account
  }

  /** The account of a pickle, to be changed: until `changed` it stands for none. */
  toChange(pickle: string): OlmAccount {
    const account = this.of(pickle)
    if (this.#held !== undefined) this.#held.pickle = undefined
    return account
  }

  /** The pickle of the account after a change, for which the box stands from now on. */
  changed(): string {
    if (this.#held === undefined) throw new Error('no account is being changed')
    return (this.#held.pickle ??= this.#held.account.pickle())
  }

  free(): void {
    this.#held?.account.free()
    this.#held = undefined
  }
}
