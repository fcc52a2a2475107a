/**
 * POST /keys/claim (client-server API; order: MSC4225). The answer is put together from stored key texts, unparsed.
 * Users of other servers answer an entry in `failures`: there is no federation yet.
 */
import { type Algorithm, type DeviceId, keyName, parseUserId, type UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { invalidParam, quoted } from '../../matrix-error.ts'
import type { ClaimResult, ClaimTarget } from '../../pool/port.ts'
import type { Context } from '../../context.ts'
import { endpoint, JsonText } from '../endpoint.ts'
import { unreachable } from './unreachable.ts'

export const keysClaim = endpoint({
  method: 'POST',
  path: '/keys/claim',
  body: Type.Object({
    one_time_keys: Type.Optional(
      Type.Object({}, { additionalProperties: Type.Object({}, { additionalProperties: Type.String() }) }),
    ),
    timeout: Type.Optional(Type.Number()),
  }),
  async handle({ context, session, body }) {
    const { targets, failures } = sort(context, session.userId, body.one_time_keys ?? {})
    const now = context.now()
    const claimer = `${session.userId} ${session.deviceId}`
    const keys = targets.length === 0 ? [] : await context.store.pools.claim({ claimer, targets, now })
    return new JsonText(`{"one_time_keys":${encode(targets, keys)},"failures":${JSON.stringify(failures)}}`)
  },
})

/** Local devices to claim from, and the servers that cannot be asked. */
function sort(
  context: Context,
  claimer: UserId,
  wanted: object,
): { targets: ClaimTarget[]; failures: object } {
  const targets: ClaimTarget[] = []
  const servers = new Set<string>()
  const limit = context.config.pools.devicesPerClaim
  for (const [user, devices] of Object.entries(wanted)) {
    const parsed = parseUserId(user)
    if (parsed === undefined) throw invalidParam(`one_time_keys names ${quoted(user)}; expected user IDs.`)
    if (parsed.serverName !== context.serverName) {
      servers.add(parsed.serverName)
      continue
    }
    for (const [device, algorithm] of Object.entries(devices as Record<string, string>)) {
      if (targets.length === limit) throw invalidParam(`A claim may name at most ${limit} devices.`)
      const deviceId = device as DeviceId
      const spare = isDraining(context, claimer, parsed.userId, deviceId)
      targets.push({ userId: parsed.userId, deviceId, algorithm: algorithm as Algorithm, spare })
    }
  }
  return { targets, failures: unreachable(servers) }
}

/** Depletion defence (key-pool.md "Claim"): one account that keeps claiming from one device gets its fallback key. */
function isDraining({ limiters, now }: Context, claimer: UserId, user: UserId, device: DeviceId): boolean {
  const buckets = limiters.claimPerTarget
  return buckets !== undefined && buckets.take(`${claimer} ${user} ${device}`, now()) > 0
}

/** Targets of one user stand together, as they were collected. A user or device without a key is left out. */
function encode(targets: readonly ClaimTarget[], keys: ClaimResult): string {
  let text = ''
  let user: UserId | undefined
  for (const [i, target] of targets.entries()) {
    const key = keys[i]
    if (key === undefined) continue
    const name = JSON.stringify(keyName(target.algorithm, key.keyId))
    const device = `${JSON.stringify(target.deviceId)}:{${name}:${key.json}}`
    if (target.userId === user) text += `,${device}`
    else {
      text += `${user === undefined ? '' : '},'}${JSON.stringify(target.userId)}:{${device}`
      user = target.userId
    }
  }
  return user === undefined ? '{}' : `{${text}}}`
}
