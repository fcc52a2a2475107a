/**
 * `OlmAccount` over libolm (`@matrix-org/olm`, which the app passes in: it is an optional peer dependency, and its wasm
 * must have been initialised). libolm names keys by IDs of its own; they stay inside, because a restored backup repeats
 * them (vodozemac#382, element-ios#3721).
 */
import type * as Libolm from '@matrix-org/olm'
import type { OlmAccount, OlmAccounts, OlmMessage, OlmSession, OpenedSession } from './olm-account.ts'

/** What is used of the module `@matrix-org/olm`. */
export type LibolmModule = {
  readonly Account: new () => Libolm.Account
  readonly Session: new () => Libolm.Session
}

/**
 * Accounts of libolm.
 *
 * @param olm the module, after `await olm.init()`
 * @param pickleKey the secret that pickles in the store are encrypted with; the same at every start
 * @example
 * import Olm from '@matrix-org/olm'
 * await Olm.init()
 * const manager = await KeyManager.open({ store, userId, deviceId, accounts: libolmAccounts(Olm, secret) })
 */
export function libolmAccounts(olm: LibolmModule, pickleKey: string): OlmAccounts {
  return {
    create: () => adoptAccount(olm, pickleKey, (account) => account.create()),
    unpickle: (text) => adoptAccount(olm, pickleKey, (account) => account.unpickle(pickleKey, text)),
    unpickleSession: (text) => adoptSession(olm, pickleKey, (session) => session.unpickle(pickleKey, text)),
  }
}

function adoptAccount(
  olm: LibolmModule,
  pickleKey: string,
  fill: (account: Libolm.Account) => void,
): LibolmAccount {
  const account = new olm.Account()
  return new LibolmAccount(olm, pickleKey, filled(account, fill))
}

function adoptSession(
  olm: LibolmModule,
  pickleKey: string,
  fill: (session: Libolm.Session) => void,
): LibolmSession {
  return new LibolmSession(pickleKey, filled(new olm.Session(), fill))
}

/** Fills an object, or gives its memory back. */
function filled<T extends { free(): void }>(object: T, fill: (object: T) => void): T {
  try {
    fill(object)
    return object
  } catch (error) {
    object.free()
    throw error
  }
}

class LibolmAccount implements OlmAccount {
  readonly identityKeys: { readonly curve25519: string; readonly ed25519: string }
  readonly maxOneTimeKeys: number
  readonly #olm: LibolmModule
  readonly #pickleKey: string
  readonly #account: Libolm.Account

  constructor(olm: LibolmModule, pickleKey: string, account: Libolm.Account) {
    this.#olm = olm
    this.#pickleKey = pickleKey
    this.#account = account
    const { curve25519, ed25519 } = publicMembers(account.identity_keys())
    if (curve25519 === undefined || ed25519 === undefined) throw new Error('the account has no identity keys')
    this.identityKeys = { curve25519, ed25519 }
    this.maxOneTimeKeys = account.max_number_of_one_time_keys()
  }

  sign(text: string): string {
    return this.#account.sign(text)
  }

  generateOneTimeKeys(count: number): readonly string[] {
    // libolm lists what was not yet marked; keys of before would be listed among the new ones.
    this.#account.mark_keys_as_published()
    this.#account.generate_one_time_keys(count)
    const keys = publicKeys(this.#account.one_time_keys())
    this.#account.mark_keys_as_published()
    return keys
  }

  generateFallbackKey(): string {
    this.#account.generate_fallback_key()
    const [key] = publicKeys(this.#account.unpublished_fallback_key())
    if (key === undefined) throw new Error('libolm made no fallback key')
    this.#account.mark_keys_as_published()
    return key
  }

  forgetPreviousFallbackKey(): void {
    this.#account.forget_old_fallback_key()
  }

  /** libolm removes a key only for a session that was opened with it, so one is opened: from this account to itself. */
  forgetOneTimeKey(publicKey: string): boolean {
    const outbound = new this.#olm.Session()
    const inbound = new this.#olm.Session()
    try {
      outbound.create_outbound(this.#account, this.identityKeys.curve25519, publicKey)
      inbound.create_inbound(this.#account, outbound.encrypt('').body)
      this.#account.remove_one_time_keys(inbound)
      return true
    } catch {
      return false
    } finally {
      outbound.free()
      inbound.free()
    }
  }

  openInbound(senderKey: string, body: string): OpenedSession {
    const session = adoptSession(this.#olm, this.#pickleKey, (empty) =>
      empty.create_inbound_from(this.#account, senderKey, body),
    )
    try {
      return { session, plaintext: session.decrypt({ type: 0, body }) }
    } catch (error) {
      session.free()
      throw error
    }
  }

  removeUsedKey(session: OlmSession): void {
    if (!(session instanceof LibolmSession)) throw new Error('expected a session of this account')
    this.#account.remove_one_time_keys(session.inner)
  }

  openOutbound(theirIdentityKey: string, theirOneTimeKey: string): OlmSession {
    return adoptSession(this.#olm, this.#pickleKey, (empty) =>
      empty.create_outbound(this.#account, theirIdentityKey, theirOneTimeKey),
    )
  }

  pickle(): string {
    return this.#account.pickle(this.#pickleKey)
  }

  free(): void {
    this.#account.free()
  }
}

class LibolmSession implements OlmSession {
  readonly id: string
  readonly inner: Libolm.Session
  readonly #pickleKey: string

  constructor(pickleKey: string, session: Libolm.Session) {
    this.inner = session
    this.#pickleKey = pickleKey
    this.id = session.session_id()
  }

  matches(senderKey: string, body: string): boolean {
    try {
      return this.inner.matches_inbound_from(senderKey, body)
    } catch {
      return false
    }
  }

  encrypt(plaintext: string): OlmMessage {
    return this.inner.encrypt(plaintext)
  }

  decrypt({ type, body }: OlmMessage): string {
    return this.inner.decrypt(type, body)
  }

  pickle(): string {
    return this.inner.pickle(this.#pickleKey)
  }

  free(): void {
    this.inner.free()
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
