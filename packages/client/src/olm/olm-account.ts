/**
 * What the key manager asks of an implementation of Olm: the private halves of a device, and sessions made with them.
 * Every call is synchronous, because decisions are made inside one update of the store; objects that hold memory outside
 * the JavaScript heap are given back with `free`. An adapter for libolm is `libolmAccounts`.
 */

/**
 * An implementation of Olm says "no" with this: a key that is not there, a message that is malformed, forged or not for
 * this session, a pickle of another key. Any other exception means that the implementation itself is broken: the step
 * that it happened in is given up, and no message is taken for handled over it.
 */
export class OlmRefusal extends Error {
  override readonly name = 'OlmRefusal'
}

/** Makes accounts and sessions. */
export interface OlmAccounts {
  /** A new account, with new identity keys. */
  create(): OlmAccount
  /** @throws {OlmRefusal} when the text is no pickle of this implementation, or was pickled with another key. */
  unpickle(text: string): OlmAccount
  /** @throws {OlmRefusal} as `unpickle`. */
  unpickleSession(text: string): OlmSession
}

/** Public keys in unpadded base64. */
export type IdentityKeys = { readonly curve25519: string; readonly ed25519: string }

/** A session that was opened by a pre-key message, and what that message said. */
export type OpenedSession = { readonly session: OlmSession; readonly plaintext: string }

/** One device's account: its identity, and the private halves of the one-time and fallback keys that it offered. */
export interface OlmAccount {
  readonly identityKeys: IdentityKeys
  /** How many private one-time keys it can hold. Generating past that loses the oldest, silently. */
  readonly maxOneTimeKeys: number
  /** The ed25519 signature of a text's UTF-8 bytes, unpadded base64. @throws {OlmRefusal} when it is too long (libolm: 48 000 bytes) */
  sign(text: string): string
  /** Makes `count` one-time keys; the public halves of those alone, in the order in which they were made. */
  generateOneTimeKeys(count: number): readonly string[]
  /** Makes a fallback key: the current one becomes the previous one, and the previous one is lost. */
  generateFallbackKey(): string
  /** Gives up the private half of the previous fallback key. */
  forgetPreviousFallbackKey(): void
  /** Gives up the private half of one one-time key. Whether it was there. */
  forgetOneTimeKey(publicKey: string): boolean
  /**
   * Opens a session with a pre-key message, and decrypts it. The one-time key stays in the account until `removeUsedKey`.
   *
   * @throws {OlmRefusal} without side effects, when the private half is not there or the message is malformed or forged
   */
  openInbound(senderKey: string, body: string): OpenedSession
  /** Gives up the private one-time key that a session was opened with. False: it was a fallback key, which stays. */
  removeUsedKey(session: OlmSession): boolean
  /** A session to another device, with a key of it that was claimed. @throws {OlmRefusal} when a key is malformed */
  openOutbound(theirIdentityKey: string, theirOneTimeKey: string): OlmSession
  pickle(): string
  free(): void
}

/** An Olm message: type 0 is a pre-key message. */
export type OlmMessage = { readonly type: 0 | 1; readonly body: string }

/** A session with one other device. */
export interface OlmSession {
  /** Of the sender's identity key, the base key and the one-time key: the same on both sides, and for a replay. */
  readonly id: string
  /** Whether a pre-key message was made for this very session. */
  matches(senderKey: string, body: string): boolean
  encrypt(plaintext: string): OlmMessage
  /** @throws {OlmRefusal} when the message is not for this session, was decrypted before, or is malformed */
  decrypt(message: OlmMessage): string
  pickle(): string
  free(): void
}
