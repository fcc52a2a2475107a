/**
 * POST /keys/query (client-server API, "Key management"; signatures: devices/query-keys.ts). The response lists every
 * requested local user, with `{}` if there are no keys: matrix-js-sdk repeats the query endlessly for a missing user.
 */
import { isJsonObject, type JsonObject, parseUserId, type UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import type { Context } from '../../context.ts'
import type { CrossSigningUsage } from '../../devices/port.ts'
import { visibleKeys } from '../../devices/query-keys.ts'
import { badJson, invalidParam, quoted } from '../../matrix-error.ts'
import { endpoint, largeBody } from '../endpoint.ts'
import { unreachable } from './unreachable.ts'

const MAX_USERS = 10_000
/** Maximum named devices per user and in total. `[]` requests all devices of a user and names none. */
const MAX_DEVICES_PER_USER = 10_000
const MAX_DEVICES = 100_000
/** Users per read from the store. */
const USERS_PER_READ = 500

type Query = { readonly userId: UserId; readonly deviceIds: readonly string[] }

export const keysQuery = endpoint({
  method: 'POST',
  path: '/keys/query',
  bodyBytes: largeBody,
  body: Type.Object({ device_keys: Type.Optional(Type.Unknown()) }),
  async handle({ context, session, body }) {
    const { devices } = context.store
    const { queries, servers } = decode(context, body.device_keys)
    // Before the keys are read, so that the caller learns of a concurrent change from the next sync.
    await devices.track(
      session,
      queries.map(({ userId }) => userId),
    )
    const deviceKeys = new Map<UserId, object>()
    const keys: Record<CrossSigningUsage, Map<UserId, JsonObject>> = {
      master: new Map(),
      self_signing: new Map(),
      user_signing: new Map(),
    }
    for (let from = 0; from < queries.length; from += USERS_PER_READ) {
      const batch = queries.slice(from, from + USERS_PER_READ)
      const published = await devices.published(batch.map(({ userId }) => userId))
      for (const { userId, deviceIds } of batch) {
        const ofUser = published.get(userId)
        const visible = ofUser && visibleKeys(ofUser, userId, deviceIds, session.userId)
        deviceKeys.set(userId, visible?.devices ?? {})
        for (const [usage, key] of visible?.crossSigning ?? []) keys[usage].set(userId, key)
      }
    }
    return {
      device_keys: Object.fromEntries(deviceKeys),
      failures: unreachable(servers),
      master_keys: Object.fromEntries(keys.master),
      self_signing_keys: Object.fromEntries(keys.self_signing),
      user_signing_keys: Object.fromEntries(keys.user_signing),
    }
  },
})

/** Local users to look up, and unreachable servers. Invalid user IDs are skipped, as on other homeservers. */
function decode(context: Context, wanted: unknown): { queries: Query[]; servers: Set<string> } {
  if (!isJsonObject(wanted)) throw badJson('device_keys: expected an object of user IDs to device IDs.')
  const entries = Object.entries(wanted)
  if (entries.length > MAX_USERS) throw invalidParam(`A query may name at most ${MAX_USERS} users.`)
  const queries: Query[] = []
  const servers = new Set<string>()
  let devices = 0
  for (const [user, deviceIds] of entries) {
    if (!isStrings(deviceIds)) {
      throw badJson(`device_keys has no array of device IDs for ${quoted(user)}; [] requests all of them.`)
    }
    devices += deviceIds.length
    if (deviceIds.length > MAX_DEVICES_PER_USER) {
      throw invalidParam(`A query may name at most ${MAX_DEVICES_PER_USER} devices of ${quoted(user)}.`)
    }
    if (devices > MAX_DEVICES) throw invalidParam(`A query may name at most ${MAX_DEVICES} devices.`)
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
