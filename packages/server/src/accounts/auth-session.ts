/**
 * A session of user-interactive authentication: it remembers what was asked and, once carried out, the answer. It lives
 * in the store, so that any process can continue it. The store has the hash of its ID only; what it remembers is
 * encrypted with a key derived from the ID, which only the client has: a body may contain a password.
 */
import { createCipheriv, createDecipheriv, hash, hkdfSync, randomBytes } from 'node:crypto'
import { isJsonObject, type JsonObject, utf8Length } from '@latchkey/protocol'
import { stableText } from '../lib/stable-text.ts'
import type { AuthOwner, NewAuthSession, StoredAuthSession } from './port.ts'

/** From the challenge to the operation, and from there to the last repetition of the answer. */
export const AUTH_SESSION_MS = 15 * 60 * 1000

/** A larger body is not remembered: the client repeats it. Those without an account come from anyone. */
const MAX_REMEMBERED_BYTES = { user: 32 * 1024, network: 4 * 1024 } as const

/** The memory of a session. */
export type Memory = {
  /** The first body, without `auth`; undefined when it was too large, and after the operation. */
  readonly body?: JsonObject
  /** After the operation: its answer, and the hash of the body that it answers. */
  readonly done?: { readonly bodyHash: string; readonly answer: JsonObject }
}

export function newAuthSessionId(): string {
  return randomBytes(18).toString('base64url')
}

export function hashAuthSessionId(id: string): string {
  return hash('sha256', id, 'base64url')
}

/** The session that begins with a request. */
export function beginAuthSession(
  id: string,
  {
    owner,
    operation,
    body,
    now,
  }: {
    readonly owner: AuthOwner
    readonly operation: string
    readonly body: JsonObject
    readonly now: number
  },
): NewAuthSession {
  const rest = withoutAuth(body)
  const fits = utf8Length(JSON.stringify(rest)) <= MAX_REMEMBERED_BYTES[owner.kind]
  return {
    idHash: hashAuthSessionId(id),
    owner,
    operation: hash('sha256', operation, 'base64url'),
    sealed: seal(id, fits ? { body: rest } : {}),
    expiresTs: now + AUTH_SESSION_MS,
    now,
  }
}

/** The memory of a session whose operation has been carried out. */
export function sealAnswer(id: string, body: JsonObject, answer: JsonObject): Uint8Array {
  return seal(id, { done: { bodyHash: hashBody(body), answer } })
}

export function isOperation(session: StoredAuthSession, operation: string): boolean {
  return session.operation === hash('sha256', operation, 'base64url')
}

export function withoutAuth(body: JsonObject): JsonObject {
  const { auth: _auth, ...rest } = body
  return rest
}

/** Equal for bodies that differ in the order of members, and in `auth`, only. */
export function hashBody(body: JsonObject): string {
  return hash('sha256', stableText(withoutAuth(body)), 'base64url')
}

const CIPHER = 'aes-256-gcm'
const NONCE_BYTES = 12
const TAG_BYTES = 16

function seal(id: string, memory: Memory): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, keyOf(id), nonce)
  const text = cipher.update(JSON.stringify(memory))
  return Buffer.concat([nonce, text, cipher.final(), cipher.getAuthTag()])
}

/** @throws {Error} when the text was not sealed with this ID. */
export function unseal(id: string, sealed: Uint8Array): Memory {
  const bytes = Buffer.from(sealed)
  const decipher = createDecipheriv(CIPHER, keyOf(id), bytes.subarray(0, NONCE_BYTES))
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES))
  const text = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()])
  const memory: unknown = JSON.parse(text.toString())
  if (!isJsonObject(memory)) throw new Error('the memory of an authentication session is not an object')
  return memory as Memory
}

function keyOf(id: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', id, '', 'latchkey auth session', 32))
}
