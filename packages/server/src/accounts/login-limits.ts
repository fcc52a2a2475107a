/**
 * Limits of login attempts, counted before the password is checked, so that many at once do not evade them.
 *
 *     per network                any accounts; refused before the body is read
 *     per account and network    guesses of one person
 *     per account in all         guesses from many networks
 *
 * A known client is exempt from those that strangers can use up (issue 11, C5): in a network with an earlier login of
 * the account only the narrowest bucket of account and network counts, and with an access token of the account only
 * that of the token's device. A device ID alone proves nothing: it is public.
 */
import type { UserId } from '@latchkey/protocol'
import { NetworkBuckets } from '../lib/network-buckets.ts'
import { type BucketRate, TokenBuckets } from '../lib/token-bucket.ts'
import { limitExceeded } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import type { HashNetwork } from './known-networks.ts'
import type { AccountStore } from './port.ts'

export type LoginRates = {
  readonly loginPerAddress: BucketRate
  readonly loginPerAccount: BucketRate
  readonly loginPerAccountInAll: BucketRate
}

export type LoginAttempt = {
  /** Undefined: no account of this server. */
  readonly userId: UserId | undefined
  readonly address: string
  /** The session of an access token in the request. */
  readonly presented: Session | undefined
  readonly now: number
}

export class LoginLimits {
  readonly #accounts: Pick<AccountStore, 'knowsNetwork'>
  readonly #hashNetwork: HashNetwork
  readonly #perAddress: NetworkBuckets
  /** Requests from a network without tokens where some account is known, which are read to see whether it is theirs. */
  readonly #readAnyway: TokenBuckets
  readonly #perAccount: NetworkBuckets
  readonly #perDevice: TokenBuckets
  readonly #perAccountInAll: TokenBuckets

  constructor(accounts: Pick<AccountStore, 'knowsNetwork'>, hashNetwork: HashNetwork, rates: LoginRates) {
    this.#accounts = accounts
    this.#hashNetwork = hashNetwork
    this.#perAddress = new NetworkBuckets(rates.loginPerAddress)
    this.#readAnyway = new TokenBuckets(rates.loginPerAddress)
    this.#perAccount = new NetworkBuckets(rates.loginPerAccount)
    this.#perDevice = new TokenBuckets(rates.loginPerAccount)
    this.#perAccountInAll = new TokenBuckets(rates.loginPerAccountInAll)
  }

  /**
   * Decides, before the body is read, whether it is.
   *
   * @throws {MatrixError} 429
   */
  async admit({ address, presented, now }: Omit<LoginAttempt, 'userId'>): Promise<void> {
    const waitMs = this.#perAddress.peek(address, now)
    if (waitMs === 0 || presented !== undefined) return
    const networkHash = this.#hashNetwork(address)
    if (this.#readAnyway.take(networkHash, now) === 0 && (await this.#accounts.knowsNetwork(networkHash)))
      return
    throw tooManyFromHere(waitMs)
  }

  /**
   * Counts an attempt. Returns whether the client is known.
   *
   * @throws {MatrixError} 429
   */
  async count({ userId, address, presented, now }: LoginAttempt): Promise<boolean> {
    const account = userId ?? ''
    if (userId !== undefined && presented?.userId === userId) {
      requireTokens(this.#perDevice.take(String(presented.deviceRef), now))
      return true
    }
    if (userId !== undefined && (await this.#accounts.knowsNetwork(this.#hashNetwork(address), userId))) {
      requireTokens(this.#perAccount.takeNarrowest(address, now, account))
      return true
    }
    const waitMs = this.#perAddress.take(address, now)
    if (waitMs > 0) throw tooManyFromHere(waitMs)
    if (userId === undefined) return false
    // An attempt above the limit of its network does not count towards that of the account.
    requireTokens(this.#perAccount.take(address, now, account) || this.#perAccountInAll.take(account, now))
    return false
  }
}

function requireTokens(waitMs: number): void {
  if (waitMs > 0) throw limitExceeded('Too many tries to log in to this account.', waitMs)
}

function tooManyFromHere(waitMs: number): Error {
  return limitExceeded('Too many logins from this address.', waitMs)
}
