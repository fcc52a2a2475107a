/**
 * POST /keys/signatures/upload (client-server API, "Cross-signing"; checks: devices/signatures.ts). Objects are
 * independent: refused ones are listed in `failures`, the others are stored.
 */
import { isJsonObject, type Json, type JsonObject, parseUserId, type UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import type { KeySignature } from '../../devices/port.ts'
import { type KeyOwner, newSignatures } from '../../devices/signatures.ts'
import { invalidParam, MatrixError, notFound, quoted } from '../../matrix-error.ts'
import { endpoint, largeBody } from '../endpoint.ts'

/** Verifying a signature blocks the event loop for about 0.1 ms. */
const MAX_OBJECTS = 1000

type Upload = { readonly user: string; readonly keys: ReadonlyMap<string, JsonObject> }

export const signaturesUpload = endpoint({
  method: 'POST',
  path: '/keys/signatures/upload',
  bodyBytes: largeBody,
  body: Type.Object({}),
  async handle({ context, session, body }) {
    const uploads = decode(body)
    const { devices } = context.store
    const ownerOf = await owners(context, [session.userId, ...uploads.map(({ user }) => user)])
    const signer = ownerOf(session.userId)
    const failures = new Map<string, Record<string, Json>>()
    const writes: Promise<void>[] = []
    for (const { user, keys } of uploads) {
      const owner = ownerOf(user)
      const { signatures, failed } = verifySignatures(signer, owner, keys)
      if (failed.size > 0) failures.set(user, Object.fromEntries(failed))
      if (owner !== undefined && signatures.length > 0) {
        writes.push(devices.addSignatures(session, owner.published.userRef, signatures))
      }
    }
    await Promise.all(writes)
    return { failures: Object.fromEntries(failures) }
  },
})

function decode(body: object): Upload[] {
  let count = 0
  const uploads = Object.entries(body).map(([user, keys]): Upload => {
    if (!isJsonObject(keys))
      throw invalidParam(`${quoted(user)}: expected an object of key IDs to signed keys.`)
    const objects = Object.entries(keys).map(([keyId, object]) => {
      if (!isJsonObject(object)) throw invalidParam(`${quoted(keyId)}: expected a signed key object.`)
      return [keyId, object] as const
    })
    count += objects.length
    return { user, keys: new Map(objects) }
  })
  if (count > MAX_OBJECTS)
    throw invalidParam(`At most ${MAX_OBJECTS} signed keys are accepted at once, got ${count}.`)
  return uploads
}

/** Published keys of local users; undefined for unknown and remote users. */
async function owners(
  { store }: Context,
  users: readonly string[],
): Promise<(user: string) => KeyOwner | undefined> {
  const userIds = users.flatMap((user): UserId[] => {
    const userId = parseUserId(user)?.userId
    return userId === undefined ? [] : [userId]
  })
  const byUser = await store.devices.published(userIds)
  return (user) => {
    const userId = parseUserId(user)?.userId
    const published = userId && byUser.get(userId)
    return userId && published && { userId, published }
  }
}

function verifySignatures(
  signer: KeyOwner | undefined,
  owner: KeyOwner | undefined,
  keys: Upload['keys'],
): { signatures: KeySignature[]; failed: Map<string, Json> } {
  const signatures: KeySignature[] = []
  const failed = new Map<string, Json>()
  for (const [keyId, object] of keys) {
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
