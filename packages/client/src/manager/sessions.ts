/** Olm sessions with other devices: stored, limited in number, used to encrypt. */
import { groupBy } from '../es2023.ts'
import type { OlmMessage, OlmSession } from '../olm/olm-account.ts'
import type { Transaction } from '../store/stored-state.ts'
import { type SessionRecord, SESSIONS } from './records.ts'
import type { Step } from './step.ts'

/** The sessions with another device, most recently used first. */
export function sessionsWith(transaction: Transaction, peer: string): [string, SessionRecord][] {
  return [...transaction.all(SESSIONS)]
    .filter(([, record]) => record.peer === peer)
    .sort(([, a], [, b]) => b.usedAt - a.usedAt)
}

/**
 * Stores a session. Beyond the limit per device, that device's oldest session is dropped; beyond the total limit, the
 * oldest session of the user with the most sessions, so that no user can displace the sessions of others.
 *
 * @returns the user that lost a session because of the total limit
 */
export function putSession(
  step: Step,
  peer: string,
  session: OlmSession,
  sender?: string,
): string | undefined {
  const { transaction, settings, now } = step
  const record = { peer, pickle: session.pickle(), usedAt: now, ...(sender !== undefined && { sender }) }
  transaction.put(SESSIONS, session.id, record)
  for (const [id] of sessionsWith(transaction, peer).slice(settings.sessionsPerPeer)) {
    if (id !== session.id) transaction.delete(SESSIONS, id)
  }
  const all = [...transaction.all(SESSIONS)]
  if (all.length <= settings.sessions) return undefined
  const owners = groupBy(all, ([, { sender: by, peer: of }]) => by ?? of)
  const [[owner, theirs] = ['', all]] = [...owners].sort(([, a], [, b]) => b.length - a.length)
  const [oldest] = theirs.filter(([id]) => id !== session.id).sort(([, a], [, b]) => a.usedAt - b.usedAt)
  if (oldest === undefined) return undefined
  transaction.delete(SESSIONS, oldest[0])
  return owner
}

/** Opens an outbound session with a claimed key. Returns its ID. */
export function startSession(step: Step, theirIdentityKey: string, theirOneTimeKey: string): string {
  const session = step.account().openOutbound(theirIdentityKey, theirOneTimeKey)
  try {
    putSession(step, theirIdentityKey, session)
    return session.id
  } finally {
    session.free()
  }
}

/** Encrypts with the most recently used session; undefined when there is none. */
export function encrypt(step: Step, theirIdentityKey: string, plaintext: string): OlmMessage | undefined {
  const [latest] = sessionsWith(step.transaction, theirIdentityKey)
  if (latest === undefined) return undefined
  const [id, record] = latest
  const session = step.accounts.unpickleSession(record.pickle)
  try {
    const { type, body } = session.encrypt(plaintext)
    step.transaction.put(SESSIONS, id, {
      peer: theirIdentityKey,
      pickle: session.pickle(),
      usedAt: record.usedAt,
    })
    return { type, body }
  } finally {
    session.free()
  }
}
