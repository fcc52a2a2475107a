/**
 * `OlmAccount` over libolm (`@matrix-org/olm`). The app passes the module in, because it is an optional peer dependency
 * whose wasm must be initialised first. libolm's own key IDs are not exposed, because a restored backup repeats them
 * (vodozemac#382, element-ios#3721).
 */
import type * as Libolm from '@matrix-org/olm'
import {
  type OlmAccount,
  type OlmAccounts,
  type OlmMessage,
  OlmRefusal,
  type OlmSession,
  type OpenedSession,
} from './olm-account.ts'

/** The used part of the module `@matrix-org/olm`. */
export type LibolmModule = {
  readonly Account: new () => Libolm.Account
  readonly Session: new () => Libolm.Session
}

/**
 * libolm copies most arguments to a stack of 64 KiB without a length check: excess bytes overwrite the memory of every
 * account in the module. Measured: 60 000 bytes pass, 62 600 do not.
 */
const MAX_TEXT_BYTES = 48_000

/**
 * Accounts of libolm.
 *
 * @param olm the module, after `await olm.init()`
 * @param pickleKey the secret that pickles in the store are encrypted with; the same at every start
 * @throws {OlmRefusal} from its methods, when libolm refuses an argument
 * @example
 * import Olm from '@matrix-org/olm'
 * await Olm.init()
 * const manager = await KeyManager.open({ store, userId, deviceId, accounts: libolmAccounts(Olm, secret) })
 */
export function libolmAccounts(olm: LibolmModule, pickleKey: string): OlmAccounts {
  const engine = new Engine(olm, pickleKey)
  return {
    create: () => engine.account((account) => account.create()),
    unpickle: (text) => engine.account((account) => account.unpickle(pickleKey, fitting(text))),
    unpickleSession: (text) => engine.session((session) => session.unpickle(pickleKey, fitting(text))),
  }
}

/** @throws {OlmRefusal} when a text is too long for libolm */
function fitting(text: string): string {
  const bytes = new TextEncoder().encode(text).length
  if (bytes > MAX_TEXT_BYTES) {
    throw new OlmRefusal(`libolm accepts at most ${MAX_TEXT_BYTES} bytes, and this text has ${bytes}`)
  }
  return text
}

/** The module, and whether it can still be trusted. */
class Engine {
  readonly #olm: LibolmModule
  readonly pickleKey: string
  #failure: Error | undefined

  constructor(olm: LibolmModule, pickleKey: string) {
    this.#olm = olm
    this.pickleKey = pickleKey
  }

  /**
   * Calls libolm. Its refusals are errors that begin with `OLM.`; any other error, for instance a wasm trap, leaves the
   * memory shared by all accounts in an unknown state, so every later call fails.
   */
  call<T>(work: () => T): T {
    if (this.#failure !== undefined) throw this.#failure
    try {
      return work()
    } catch (error) {
      if (error instanceof OlmRefusal) throw error
      if (error instanceof Error && error.message.startsWith('OLM.')) {
        throw new OlmRefusal(error.message, { cause: error })
      }
      this.#failure = new Error(
        `libolm failed (${String(error)}); its memory is no longer reliable. ` +
          'Restart the process; this step was not stored.',
        { cause: error },
      )
      throw this.#failure
    }
  }

  /** Whether a call succeeds that may be refused. */
  accepts(work: () => void): boolean {
    try {
      this.call(work)
      return true
    } catch (error) {
      if (error instanceof OlmRefusal) return false
      throw error
    }
  }

  account(fill: (account: Libolm.Account) => void): LibolmAccount {
    const account = this.call(() => new this.#olm.Account())
    return new LibolmAccount(this, this.#filled(account, fill))
  }

  emptySession(): Libolm.Session {
    return this.call(() => new this.#olm.Session())
  }

  session(fill: (session: Libolm.Session) => void): LibolmSession {
    return new LibolmSession(this, this.#filled(this.emptySession(), fill))
  }

  /** Frees memory, unless the module failed and may not be able to. */
  free(object: { free(): void }): void {
    if (this.#failure === undefined) object.free()
  }

  #filled<T extends { free(): void }>(object: T, fill: (object: T) => void): T {
    try {
      this.call(() => fill(object))
      return object
    } catch (error) {
      this.free(object)
      throw error
    }
  }
}

class LibolmAccount implements OlmAccount {
  readonly identityKeys: { readonly curve25519: string; readonly ed25519: string }
  readonly maxOneTimeKeys: number
  readonly #engine: Engine
  readonly #account: Libolm.Account

  constructor(engine: Engine, account: Libolm.Account) {
    this.#engine = engine
    this.#account = account
    const { curve25519, ed25519 } = publicMembers(account.identity_keys())
    if (curve25519 === undefined || ed25519 === undefined) throw new Error('the account has no identity keys')
    this.identityKeys = { curve25519, ed25519 }
    this.maxOneTimeKeys = account.max_number_of_one_time_keys()
  }

  sign(text: string): string {
    return this.#engine.call(() => this.#account.sign(fitting(text)))
  }

  generateOneTimeKeys(count: number): readonly string[] {
    return this.#engine.call(() => {
      // libolm lists unmarked keys: mark earlier ones, or they would be listed among the new ones.
      this.#account.mark_keys_as_published()
      this.#account.generate_one_time_keys(count)
      const keys = publicKeys(this.#account.one_time_keys())
      this.#account.mark_keys_as_published()
      return keys
    })
  }

  generateFallbackKey(): string {
    return this.#engine.call(() => {
      this.#account.generate_fallback_key()
      const [key] = publicKeys(this.#account.unpublished_fallback_key())
      if (key === undefined) throw new Error('libolm made no fallback key')
      this.#account.mark_keys_as_published()
      return key
    })
  }

  forgetPreviousFallbackKey(): void {
    this.#engine.call(() => this.#account.forget_old_fallback_key())
  }

  /** libolm removes a key only for a session opened with it, so this opens one from the account to itself. */
  forgetOneTimeKey(publicKey: string): boolean {
    const outbound = this.#engine.emptySession()
    const inbound = this.#engine.emptySession()
    try {
      return this.#engine.accepts(() => {
        outbound.create_outbound(this.#account, this.identityKeys.curve25519, fitting(publicKey))
        inbound.create_inbound(this.#account, outbound.encrypt('').body)
        this.#account.remove_one_time_keys(inbound)
      })
    } finally {
      this.#engine.free(outbound)
      this.#engine.free(inbound)
    }
  }

  openInbound(senderKey: string, body: string): OpenedSession {
    const session = this.#engine.session((empty) =>
      empty.create_inbound_from(this.#account, fitting(senderKey), fitting(body)),
    )
    try {
      return { session, plaintext: session.decrypt({ type: 0, body }) }
    } catch (error) {
      session.free()
      throw error
    }
  }

  removeUsedKey(session: OlmSession): boolean {
    if (!(session instanceof LibolmSession)) throw new Error('expected a session of this account')
    const remove = (): void => this.#account.remove_one_time_keys(session.inner)
    this.#engine.call(remove)
    // A second removal succeeds for a fallback key only: a one-time key is no longer found.
    return !this.#engine.accepts(remove)
  }

  openOutbound(theirIdentityKey: string, theirOneTimeKey: string): OlmSession {
    return this.#engine.session((empty) =>
      empty.create_outbound(this.#account, fitting(theirIdentityKey), fitting(theirOneTimeKey)),
    )
  }

  pickle(): string {
    return this.#engine.call(() => this.#account.pickle(this.#engine.pickleKey))
  }

  free(): void {
    this.#engine.free(this.#account)
  }
}

class LibolmSession implements OlmSession {
  readonly id: string
  readonly inner: Libolm.Session
  readonly #engine: Engine

  constructor(engine: Engine, session: Libolm.Session) {
    this.inner = session
    this.#engine = engine
    this.id = session.session_id()
  }

  matches(senderKey: string, body: string): boolean {
    let isMatch = false
    const isWhole = this.#engine.accepts(() => {
      isMatch = this.inner.matches_inbound_from(fitting(senderKey), fitting(body))
    })
    return isWhole && isMatch
  }

  encrypt(plaintext: string): OlmMessage {
    return this.#engine.call(() => this.inner.encrypt(plaintext))
  }

  decrypt({ type, body }: OlmMessage): string {
    return this.#engine.call(() => this.inner.decrypt(type, body))
  }

  pickle(): string {
    return this.#engine.call(() => this.inner.pickle(this.#engine.pickleKey))
  }

  free(): void {
    this.#engine.free(this.inner)
  }
}

/** The public keys of `{"curve25519": {id: key}}`, in the order of the IDs, which are counters in base64. */
function publicKeys(text: string): string[] {
  const { curve25519 = {} } = JSON.parse(text) as { curve25519?: Record<string, string> }
  const keys = Object.entries(curve25519).map(([id, key]) => [atob(id.padEnd(8, '=')), key] as const)
  return keys.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, key]) => key)
}

function publicMembers(text: string): Partial<Record<string, string>> {
  return JSON.parse(text) as Partial<Record<string, string>>
}
