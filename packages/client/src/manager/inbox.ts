/**
 * Decrypting: what a sync brings becomes sessions, plaintexts and used keys in the same durable step as the sync position,
 * so that no crash can lose a message or keep a key that opened one.
 *
 * A private one-time key is given up only after a message with it was decrypted; a malformed or forged one changes
 * nothing (matrix-rust-sdk#1761). A pre-key message opens a session once: with a one-time key because the key is gone,
 * with a fallback key because the session's ID is remembered for as long as the private half lives (MSC2732).
 */
import type { Verdict } from '../events.ts'
import { verdictOf } from '../ledger/explain.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { findByHash, hashOf, moveTo } from '../ledger/ledger.ts'
import type { OlmMessage, OlmSession } from '../olm/olm-account.ts'
import { decodeOlmEvent, parsePreKeyMessage } from '../olm/pre-key-message.ts'
import type { Kind, Transaction } from '../store/stored-state.ts'
import { type DecryptedMessage, INBOX, type Memory, OPENED, SEEN, SESSIONS } from './records.ts'
import type { Step } from './step.ts'

/** An encrypted message for this device, with the hashes that are taken beforehand, because steps are synchronous. */
export type Ciphertext = OlmMessage & {
  readonly sender: string
  readonly senderKey: string
  /** Of sender key, type and body: the same again is the same message. */
  readonly hash: string
  /** Of the public key that a pre-key message names. */
  readonly keyHash?: string
}

/** A message that could not be decrypted. */
export type Failure = {
  readonly sender: string
  readonly senderKey: string
  /** What the ledger knows of the key that the message names; `no_session` where it names none and no session fits. */
  readonly verdict: Verdict
  /** The public key that the message names. */
  readonly key?: string
}

/** Ciphertexts that are remembered, to tell a repeated message from one that fails. */
const MAX_SEEN = 1_000
/** Sessions opened with fallback keys that are remembered; past half of it the fallback key is due to be renewed. */
const MAX_OPENED = 10_000

/** The Olm messages among to-device events that are encrypted for a device. */
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
  const named = message.type === 0 ? parsePreKeyMessage(message.body) : undefined
  const hash = await hashOf(`${message.senderKey} ${message.type} ${message.body}`)
  return named === undefined
    ? { ...message, hash }
    : { ...message, hash, keyHash: await hashOf(named.oneTimeKey) }
}

/** Decrypts what a sync brought, in order. Returns what could not be; what could is in the inbox. */
export function decryptAll(step: Step, ciphertexts: readonly Ciphertext[]): Failure[] {
  const failures: Failure[] = []
  for (const ciphertext of ciphertexts) {
    if (step.transaction.get(SEEN, ciphertext.hash) !== undefined) continue
    const opened = decrypt(step, ciphertext)
    if (typeof opened === 'object') {
      remember(step.transaction, SEEN, ciphertext.hash, MAX_SEEN)
      putMessage(step.transaction, {
        id: ciphertext.hash,
        sender: ciphertext.sender,
        senderKey: ciphertext.senderKey,
        ...opened,
      })
      continue
    }
    const { sender, senderKey, type, body } = ciphertext
    const key = type === 0 ? parsePreKeyMessage(body)?.oneTimeKey : undefined
    const failure = { sender, senderKey, verdict: opened, ...(key !== undefined && { key }) }
    failures.push(failure)
    step.tell('undecryptable', { sender, verdict: opened, ...(key !== undefined && { key }) })
  }
  return failures
}

type Opened = Pick<DecryptedMessage, 'plaintext' | 'sessionId'>

function decrypt(step: Step, ciphertext: Ciphertext): Opened | Verdict {
  const existing = decryptWithSession(step, ciphertext)
  if (existing !== undefined) return existing
  return ciphertext.type === 0 ? openSession(step, ciphertext) : 'no_session'
}

/** Tries the sessions that there are; undefined when none of them is meant. */
function decryptWithSession(step: Step, ciphertext: Ciphertext): Opened | Verdict | undefined {
  const { transaction, now } = step
  const { senderKey, type, body } = ciphertext
  for (const [id, record] of sessionsWith(transaction, senderKey)) {
    const session = step.accounts.unpickleSession(record.pickle)
    try {
      if (type === 0 && !session.matches(senderKey, body)) continue
      const plaintext = attempt(() => session.decrypt(ciphertext))
      if (plaintext !== undefined) {
        transaction.put(SESSIONS, id, { peer: senderKey, pickle: session.pickle(), usedAt: now })
        return { plaintext, sessionId: id }
      }
      // A pre-key message of this very session, which was decrypted before or is damaged: never open it anew.
      if (type === 0) return 'used_before'
    } finally {
      session.free()
    }
  }
  return undefined
}

function openSession(step: Step, ciphertext: Ciphertext): Opened | Verdict {
  const { transaction, now } = step
  const { senderKey, body, keyHash } = ciphertext
  if (keyHash === undefined) return 'malformed'
  const oneTime = findByHash(transaction, ONE_TIME_KEYS, keyHash)
  const fallback = findByHash(transaction, FALLBACK_KEYS, keyHash)
  const opened = attempt(() => step.account().openInbound(senderKey, body))
  if (opened === undefined) {
    if (oneTime !== undefined) return verdictOf('one-time', oneTime[1])
    return fallback === undefined ? 'never_ours' : verdictOf('fallback', fallback[1])
  }
  const { session, plaintext } = opened
  try {
    if (transaction.get(OPENED, session.id) !== undefined) return 'used_before'
    if (fallback === undefined) step.accountToChange().removeUsedKey(session)
    else {
      const count = remember(transaction, OPENED, session.id, MAX_OPENED, fallback[0])
      if (count > MAX_OPENED / 2 && step.status.fallbackWanted === undefined)
        step.patch({ fallbackWanted: 'used' })
    }
    if (oneTime !== undefined) {
      moveTo(transaction, ONE_TIME_KEYS, oneTime[0], 'used', now, { session: session.id })
    }
    putSession(step, senderKey, session)
    return { plaintext, sessionId: session.id }
  } finally {
    session.free()
  }
}

/** The sessions with another device, the one that was used last first. */
export function sessionsWith(
  transaction: Transaction,
  peer: string,
): [string, { readonly pickle: string; readonly usedAt: number }][] {
  return [...transaction.all(SESSIONS)]
    .filter(([, record]) => record.peer === peer)
    .sort(([, a], [, b]) => b.usedAt - a.usedAt)
}

/** Stores a session, and lets the oldest go where there are too many: with this device, or in all. */
export function putSession(step: Step, peer: string, session: OlmSession): void {
  const { transaction, settings, now } = step
  transaction.put(SESSIONS, session.id, { peer, pickle: session.pickle(), usedAt: now })
  for (const [id] of sessionsWith(transaction, peer).slice(settings.sessionsPerPeer)) {
    if (id !== session.id) transaction.delete(SESSIONS, id)
  }
  const all = transaction.all(SESSIONS)
  if (all.size <= settings.sessions) return
  const oldest = [...all].sort(([, a], [, b]) => a.usedAt - b.usedAt).slice(0, all.size - settings.sessions)
  for (const [id] of oldest) if (id !== session.id) transaction.delete(SESSIONS, id)
}

/** Remembers something, within bounds: the oldest go. Returns how many are remembered. */
function remember(
  transaction: Transaction,
  kind: Kind<Memory>,
  id: string,
  max: number,
  of?: string,
): number {
  const all = transaction.all(kind)
  const n = 1 + [...all.values()].reduce((highest, memory) => Math.max(highest, memory.n), 0)
  transaction.put(kind, id, { n, ...(of !== undefined && { of }) })
  if (all.size < max) return all.size + 1
  const old = [...all].sort(([, a], [, b]) => a.n - b.n).slice(0, all.size + 1 - max)
  for (const [former] of old) transaction.delete(kind, former)
  return max
}

function putMessage(transaction: Transaction, message: DecryptedMessage): void {
  const highest = [...transaction.all(INBOX).keys()].reduce(
    (last, number) => Math.max(last, Number(number)),
    0,
  )
  transaction.put(INBOX, String(highest + 1), message)
}

/** What a call returns, or undefined when it throws: libolm says "no" by exceptions. */
function attempt<T>(call: () => T): T | undefined {
  try {
    return call()
  } catch {
    return undefined
  }
}
