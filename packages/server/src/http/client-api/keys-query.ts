/**
 * POST /keys/query (client-server API, "Key management"; signatures: devices/query-keys.ts). The response lists every
 * requested local user, with `{}` if there are no keys: matrix-js-sdk repeats the query endlessly for a missing user.
 */
import { isJsonObject, parseUserId, type UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { SizeLimits } from '../../config/config.ts'
import type { Context } from '../../context.ts'
import type { CrossSigningUsage } from '../../devices/port.ts'
import { visibleKeys } from '../../devices/query-keys.ts'
import { inTurns } from '../../lib/turns.ts'
import { badJson, invalidParam, quoted, tooLarge } from '../../matrix-error.ts'
import { endpoint, JsonText, largeBody } from '../endpoint.ts'
import { unreachable } from './unreachable.ts'

const MAX_DEVICES_PER_USER = 10_000
/** Users per read from the store and turn of the event loop: a few milliseconds. */
const USERS_PER_TURN = 100

/** One answer has at most this part of the bytes of all answers in flight. */
const ANSWER_DIVISOR = 4

type Query = { readonly userId: UserId; readonly deviceIds: readonly string[] }

export const keysQuery = endpoint({
  method: 'POST',
  path: '/keys/query',
  bodyBytes: largeBody,
  repeatable: true,
  body: Type.Object({ device_keys: Type.Optional(Type.Unknown()) }),
  async handle({ context, session, body }) {
    const { devices } = context.store
    const { queries, servers } = decode(context, body.device_keys)
    // Before the keys are read, so that the caller learns of a concurrent change from the next sync.
    await devices.track(
      session,
      queries.map(({ userId }) => userId),
    )
    const deviceKeys: string[] = []
    const keys: Record<CrossSigningUsage, string[]> = { master: [], self_signing: [], user_signing: [] }
    let length = 0
    for await (const some of inTurns(queries, USERS_PER_TURN)) {
      const published = await devices.published(
        some.map(({ userId }) => userId),
        session.userRef,
      )
      for (const { userId, deviceIds } of some) {
        const ofUser = published.get(userId)
        const visible = ofUser && visibleKeys(ofUser, userId, deviceIds, session.userId)
        const ofDevices = member(userId, visible?.devices ?? {})
        deviceKeys.push(ofDevices)
        length += ofDevices.length
        for (const [usage, key] of visible?.crossSigning ?? []) keys[usage].push(member(userId, key))
        requireLength(length, context.config.sizes)
      }
      context.answers.requireRoom(session.userRef, length)
    }
    return new JsonText(
      `{"device_keys":{${deviceKeys.join()}},"failures":${JSON.stringify(unreachable(servers))},` +
        `"master_keys":{${keys.master.join()}},"self_signing_keys":{${keys.self_signing.join()}},` +
        `"user_signing_keys":{${keys.user_signing.join()}}}`,
    )
  },
})

/** Nothing else bounds the devices of the named users together. @throws {MatrixError} 413 */
function requireLength(length: number, { answerBytesInFlight }: SizeLimits): void {
  const limit = Math.floor(answerBytesInFlight / ANSWER_DIVISOR)
  if (length > limit)
    throw tooLarge(`The keys of these users have more than ${limit} bytes; name fewer users or devices.`)
}

/** A member of a JSON object. The answer is encoded in pieces, because all of it can have megabytes. */
function member(userId: UserId, value: object): string {
  return `${JSON.stringify(userId)}:${JSON.stringify(value)}`
}

/** Local users to look up, and unreachable servers. Invalid user IDs are skipped, as on other homeservers. */
function decode(context: Context, wanted: unknown): { queries: Query[]; servers: Set<string> } {
  if (!isJsonObject(wanted)) throw badJson('device_keys: expected an object of user IDs to device IDs.')
  const queries: Query[] = []
  const servers = new Set<string>()
  for (const [user, deviceIds] of Object.entries(wanted)) {
    if (!isStrings(deviceIds)) {
      throw badJson(`device_keys has no array of device IDs for ${quoted(user)}; [] requests all of them.`)
    }
    if (deviceIds.length > MAX_DEVICES_PER_USER) {
      throw invalidParam(`A query may name at most ${MAX_DEVICES_PER_USER} devices of ${quoted(user)}.`)
    }
    const parsed = parseUserId(user)
    if (parsed === undefined) continue
    if (parsed.serverName === context.serverName) queries.push({ userId: parsed.userId, deviceIds })
    else servers.add(parsed.serverName)
  }
  return { queries, servers }
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}
