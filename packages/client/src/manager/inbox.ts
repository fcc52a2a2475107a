/**
 * Decryption: a sync becomes sessions, plaintexts and used keys in the same durable step as the sync position, so a
 * crash can neither lose a message nor keep a key that opened one.
 *
 * A private one-time key is dropped only after a message with it was decrypted; a malformed or forged message changes
 * nothing (matrix-rust-sdk#1761). A pre-key message opens one session: with a one-time key because the key is dropped,
 * with a fallback key because the session's ID is remembered as long as the private half exists (MSC2732).
 */
import type { Verdict } from '../events.ts'
import { verdictOf } from '../ledger/explain.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf, moveTo } from '../ledger/ledger.ts'
import { type OlmMessage, OlmRefusal } from '../olm/olm-account.ts'
import { decodeOlmEvent, parsePreKeyMessage } from '../olm/pre-key-message.ts'
import type { Kind, Transaction } from '../store/stored-state.ts'
import { MANY_OPENED } from './fallback.ts'
import {
  ACCOUNT,
  type DecryptedMessage,
  INBOX,
  ONLY,
  OPENED,
  type Remembered,
  SEEN,
  SESSIONS,
} from './records.ts'
import { putSession, sessionsWith } from './sessions.ts'
import { accountOf, type Step } from './step.ts'

/** An encrypted message for this device, with hashes computed beforehand because steps are synchronous. */
export type Ciphertext = OlmMessage & {
  readonly sender: string
  readonly senderKey: string
  /** Hash of sender key, type and body; equal for repeated messages. */
  readonly hash: string
  /** The public key that a pre-key message names, and its hash. */
  readonly key?: string
  readonly keyHash?: string
}

/** A message that could not be decrypted. */
export type Failure = {
  readonly sender: string
  readonly senderKey: string
  /** The ledger's verdict on the key that the message names; `no_session` if it names none and no session matches. */
  readonly verdict: Verdict
  /** The public key that the message names. */
  readonly key?: string
}

/** Outcome of one sync. */
export type Received = {
  /** Messages that this call decrypted, and once those that an earlier process left. */
  readonly messages: readonly DecryptedMessage[]
  /** Messages that could not be decrypted, each with the verdict on its key. */
  readonly failures: readonly Failure[]
}

/**
 * Maximum body lengths, in base64 characters. Servers limit events to 64 KiB; pre-key messages are usually 2 kB, and
 * libolm cannot take much more than this (libolm-account.ts).
 */
const MAX_BODY_CHARS = { 0: 48_000, 1: 65_536 } as const
/** Remembered ciphertexts, which distinguish a repeated message from a failing one. */
const MAX_SEEN = 1_000
/** Remembered sessions that were opened with fallback keys. */
const MAX_OPENED = 2 * MANY_OPENED

/** The Olm messages for this device among to-device events. */
export async function ciphertextsFor(events: readonly unknown[], identityKey: string): Promise<Ciphertext[]> {
  const found: Promise<Ciphertext>[] = []
  for (const event of events) {
    const olm = decodeOlmEvent(event)
    const message = olm?.ciphertexts[identityKey]
    if (olm === undefined || message === undefined) continue
    found.push(hashed({ ...message, sender: olm.sender, senderKey: olm.senderKey }))
  }
  return Promise.all(found)
}

async function hashed(message: Omit<Ciphertext, 'hash'>): Promise<Ciphertext> {
  const hash = await hashOf(`${message.senderKey} ${message.type} ${message.body}`)
  const isShort = message.body.length <= MAX_BODY_CHARS[0]
  const key = message.type === 0 && isShort ? parsePreKeyMessage(message.body)?.oneTimeKey : undefined
  return key === undefined ? { ...message, hash } : { ...message, hash, key, keyHash: await hashOf(key) }
}

/** Result of decrypting a sync: inbox numbers of the decrypted messages, and the failures. */
export type Decrypted = { readonly stored: readonly string[]; readonly failures: readonly Failure[] }

/** Decrypts a sync's messages into the inbox, in order. */
export function decryptAll(step: Step, ciphertexts: readonly Ciphertext[]): Decrypted {
  const failures: Failure[] = []
  const stored: string[] = []
  const dropped = new Map<string, number>()
  for (const ciphertext of ciphertexts) {
    if (step.transaction.get(SEEN, ciphertext.hash) !== undefined) continue
    const { sender, senderKey, key } = ciphertext
    const opened = decrypt(step, ciphertext, dropped)
    if (typeof opened === 'object') {
      remember(step.transaction, SEEN, ciphertext.hash, MAX_SEEN)
      stored.push(putMessage(step, { id: ciphertext.hash, sender, senderKey, ...opened }))
      continue
    }
    failures.push({ sender, senderKey, verdict: opened, ...(key !== undefined && { key }) })
    step.emit('undecryptable', { sender, verdict: opened, ...(key !== undefined && { key }) })
  }
  for (const [sender, count] of dropped) step.emit('sessions_dropped', { sender, count })
  return { stored, failures }
}

type Opened = Pick<DecryptedMessage, 'plaintext' | 'sessionId'>

function decrypt(step: Step, ciphertext: Ciphertext, dropped: Map<string, number>): Opened | Verdict {
  const { type, body, keyHash } = ciphertext
  if (type === 0 && keyHash === undefined) return 'malformed'
  if (body.length > MAX_BODY_CHARS[type]) return 'malformed'
  const existing = decryptWithSession(step, ciphertext)
  if (existing !== undefined) return existing
  return type === 0 ? openSession(step, ciphertext, dropped) : 'no_session'
}

/** Tries the existing sessions; undefined when none of them matches. */
function decryptWithSession(step: Step, ciphertext: Ciphertext): Opened | Verdict | undefined {
  const { transaction, now } = step
  const { senderKey, type, body } = ciphertext
  for (const [id, record] of sessionsWith(transaction, senderKey)) {
    const session = step.accounts.unpickleSession(record.pickle)
    try {
      if (type === 0 && !session.matches(senderKey, body)) continue
      const plaintext = attempt(() => session.decrypt(ciphertext))
      if (plaintext !== undefined) {
        transaction.put(SESSIONS, id, { ...record, pickle: session.pickle(), usedAt: now })
        return { plaintext, sessionId: id }
      }
      // A pre-key message of an existing session, already decrypted or damaged: never open that session again.
      if (type === 0) return 'already_used'
    } finally {
      session.free()
    }
  }
  return undefined
}

function openSession(
  step: Step,
  { sender, senderKey, body, keyHash = '' }: Ciphertext,
  dropped: Map<string, number>,
): Opened | Verdict {
  const { transaction, now } = step
  const oneTime = findByHash(transaction, ONE_TIME_KEYS, keyHash)
  const fallback = findByHash(transaction, FALLBACK_KEYS, keyHash)
  const opened = attempt(() => step.account().openInbound(senderKey, body))
  if (opened === undefined) {
    if (oneTime !== undefined) return verdictOf('one-time', oneTime[1])
    return fallback === undefined ? 'unknown_key' : verdictOf('fallback', fallback[1])
  }
  const { session, plaintext } = opened
  try {
    if (transaction.get(OPENED, session.id) !== undefined) return 'already_used'
    if (fallback === undefined && step.accountToChange().removeUsedKey(session)) {
      if (oneTime === undefined) noteImportedUsed(step)
      else moveTo(transaction, ONE_TIME_KEYS, oneTime[0], 'used', now, { session: session.id })
    } else remember(transaction, OPENED, session.id, MAX_OPENED, fallback?.[0])
    const former = putSession(step, senderKey, session, sender)
    if (former !== undefined) dropped.set(former, (dropped.get(former) ?? 0) + 1)
    return { plaintext, sessionId: session.id }
  } finally {
    session.free()
  }
}

/** A key in the account that the ledger does not know belongs to an imported account. */
function noteImportedUsed({ transaction }: Step): void {
  const account = accountOf(transaction)
  const { imported } = account
  if (imported === undefined) return
  const held = Math.max(0, imported.held - 1)
  transaction.put(ACCOUNT, ONLY, { ...account, imported: { ...imported, held } })
}

/** Remembers an entry, up to `max`; the oldest are dropped. */
function remember(
  transaction: Transaction,
  kind: Kind<Remembered>,
  id: string,
  max: number,
  of?: string,
): void {
  const all = transaction.all(kind)
  let n = 1
  for (const memory of all.values()) n = Math.max(n, memory.n + 1)
  transaction.put(kind, id, { n, ...(of !== undefined && { of }) })
  const surplus = all.size + 1 - max
  if (surplus <= 0) return
  for (const [former] of [...all].sort(([, a], [, b]) => a.n - b.n).slice(0, surplus)) {
    transaction.delete(kind, former)
  }
}

/** Stores a message in the inbox, under a number that was never used before. */
function putMessage(step: Step, message: DecryptedMessage): string {
  const { transaction, status } = step
  const lastMessage = status.lastMessage + 1
  step.patch({ lastMessage })
  transaction.put(INBOX, String(lastMessage), message)
  return String(lastMessage)
}

/** The result of a call; undefined when Olm refuses. Any other exception aborts the step. */
function attempt<T>(call: () => T): T | undefined {
  try {
    return call()
  } catch (error) {
    if (error instanceof OlmRefusal) return undefined
    throw error
  }
}

/** Inbox messages with their numbers, oldest first. */
export function inboxOf(inbox: ReadonlyMap<string, DecryptedMessage>): [string, DecryptedMessage][] {
  return [...inbox].sort(([a], [b]) => Number(a) - Number(b))
}
