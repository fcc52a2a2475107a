/**
 * POST /keys/signatures/upload (client-server API, "Cross-signing"; checks: devices/signatures.ts). Objects are
 * independent: refused ones are listed in `failures`, the others are stored.
 */
import { isJsonObject, type Json, type JsonObject, parseUserId, type UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import type { KeySignature } from '../../devices/port.ts'
import { type KeyOwner, newSignatures } from '../../devices/signatures.ts'
import { inTurns } from '../../lib/turns.ts'
import { invalidParam, MatrixError, notFound, quoted } from '../../matrix-error.ts'
import type { Session } from '../../session.ts'
import { endpoint, largeBody } from '../endpoint.ts'

/** Keys per read. Each is verified in a turn of the event loop of its own: it may have several signatures. */
const KEYS_PER_READ = 20

type Uploaded = { readonly user: string; readonly keyId: string; readonly object: JsonObject }

export const signaturesUpload = endpoint({
  method: 'POST',
  path: '/keys/signatures/upload',
  bodyBytes: largeBody,
  body: Type.Object({}),
  async handle({ context, session, body }) {
    const { devices } = context.store
    const signer = (await owners(context, session, [session.userId]))(session.userId)
    const failures = new Map<string, Record<string, Json>>()
    for await (const some of inTurns(decode(body), KEYS_PER_READ)) {
      const byUser = Map.groupBy(some, ({ user }) => user)
      const ownerOf = await owners(context, session, [...byUser.keys()])
      const writes = [...byUser].map(async ([user, keys]) => {
        const owner = ownerOf(user)
        const { signatures, failed } = await verifySignatures(signer, owner, keys)
        if (failed.size > 0) failures.set(user, { ...failures.get(user), ...Object.fromEntries(failed) })
        if (owner === undefined || signatures.length === 0) return
        await devices.addSignatures(session, owner.published.userRef, signatures)
      })
      await Promise.all(writes)
    }
    return { failures: Object.fromEntries(failures) }
  },
})

function decode(body: object): Uploaded[] {
  return Object.entries(body).flatMap(([user, keys]): Uploaded[] => {
    if (!isJsonObject(keys))
      throw invalidParam(`${quoted(user)}: expected an object of key IDs to signed keys.`)
    return Object.entries(keys).map(([keyId, object]) => {
      if (!isJsonObject(object)) throw invalidParam(`${quoted(keyId)}: expected a signed key object.`)
      return { user, keyId, object }
    })
  })
}

/** Published keys of local users; undefined for unknown and remote users. */
async function owners(
  { store }: Context,
  { userRef }: Session,
  users: readonly string[],
): Promise<(user: string) => KeyOwner | undefined> {
  const userIds = users.flatMap((user): UserId[] => {
    const userId = parseUserId(user)?.userId
    return userId === undefined ? [] : [userId]
  })
  const byUser = await store.devices.published(userIds, userRef)
  return (user) => {
    const userId = parseUserId(user)?.userId
    const published = userId && byUser.get(userId)
    return userId && published && { userId, published }
  }
}

async function verifySignatures(
  signer: KeyOwner | undefined,
  owner: KeyOwner | undefined,
  keys: readonly Uploaded[],
): Promise<{ signatures: KeySignature[]; failed: Map<string, Json> }> {
  const signatures: KeySignature[] = []
  const failed = new Map<string, Json>()
  for await (const [key] of inTurns(keys, 1)) {
    if (key === undefined) break
    const { keyId, object } = key
    try {
      if (signer === undefined || owner === undefined) throw notFound('This server has no keys of this user.')
      signatures.push(...newSignatures(signer, owner, keyId, object))
    } catch (error) {
      if (!(error instanceof MatrixError)) throw error
      // The specification's member is `error`; other homeservers, and clients written for them, use `message`.
      failed.set(keyId, { status: error.status, ...error.body(), message: error.message })
    }
  }
  return { signatures, failed }
}
