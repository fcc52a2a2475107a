/**
 * The port to an Olm implementation: a device's private keys, and sessions made with them. All
 * calls are synchronous, because decisions are made inside one update of the store. Objects that hold memory outside
 * the JavaScript heap are released with `free`. `libolmAccounts` is an adapter for libolm.
 */

/**
 * A refusal by an Olm implementation: a missing key, a message that is malformed, forged or of another session, a
 * pickle with another key. Any other exception means that the implementation is broken: the current step is aborted,
 * and no message counts as handled.
 */
export class OlmRefusal extends Error {
  override readonly name = 'OlmRefusal'
}

/** Creates accounts and sessions. */
export interface OlmAccounts {
  /** A new account, with new identity keys. */
  create(): OlmAccount
  /** @throws {OlmRefusal} when the text is not a pickle of this implementation, or was pickled with another key. */
  unpickle(text: string): OlmAccount
  /** @throws {OlmRefusal} as `unpickle`. */
  unpickleSession(text: string): OlmSession
}

/** Public keys in unpadded base64. */
export type IdentityKeys = { readonly curve25519: string; readonly ed25519: string }

/** A session opened by a pre-key message, and the message's plaintext. */
export type OpenedSession = { readonly session: OlmSession; readonly plaintext: string }

/** One device's account: its identity, and the private halves of its one-time and fallback keys. */
export interface OlmAccount {
  readonly identityKeys: IdentityKeys
  /** Private one-time keys it can hold. Generating more silently discards the oldest. */
  readonly maxOneTimeKeys: number
  /**
   * The ed25519 signature of a text's UTF-8 bytes, unpadded base64.
   *
   * @throws {OlmRefusal} when the text is too long (libolm: 48 000 bytes)
   */
  sign(text: string): string
  /** Generates `count` one-time keys. Returns only their public halves, in the order of generation. */
  generateOneTimeKeys(count: number): readonly string[]
  /** Generates a fallback key: the current key becomes the previous one, and the previous one is discarded. */
  generateFallbackKey(): string
  /** Discards the private half of the previous fallback key. */
  forgetPreviousFallbackKey(): void
  /** Discards the private half of a one-time key. Returns whether it existed. */
  forgetOneTimeKey(publicKey: string): boolean
  /**
   * Opens a session with a pre-key message and decrypts it. The one-time key stays in the account until
   * `removeUsedKey`.
   *
   * @throws {OlmRefusal} without side effects, when the private half is missing or the message is malformed or forged
   */
  openInbound(senderKey: string, body: string): OpenedSession
  /** Discards the private one-time key that opened a session. False: it was a fallback key, which stays. */
  removeUsedKey(session: OlmSession): boolean
  /** Opens a session to another device with a key claimed from it. @throws {OlmRefusal} when a key is malformed */
  openOutbound(theirIdentityKey: string, theirOneTimeKey: string): OlmSession
  pickle(): string
  free(): void
}

/** An Olm message: type 0 is a pre-key message. */
export type OlmMessage = { readonly type: 0 | 1; readonly body: string }

/** A session with one other device. */
export interface OlmSession {
  /** Derived from sender identity key, base key and one-time key: equal on both sides and for a replay. */
  readonly id: string
  /** Whether a pre-key message belongs to this session. */
  matches(senderKey: string, body: string): boolean
  encrypt(plaintext: string): OlmMessage
  /** @throws {OlmRefusal} when the message belongs to another session, was already decrypted, or is malformed */
  decrypt(message: OlmMessage): string
  pickle(): string
  free(): void
}
