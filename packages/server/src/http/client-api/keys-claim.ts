/**
 * POST /keys/claim (client-server API; order: MSC4225). The response is assembled from stored key texts, unparsed.
 * Servers of remote users are listed in `failures`: there is no federation yet.
 */
import {
  type Algorithm,
  keyName,
  MAX_ALGORITHM_BYTES,
  parseDeviceId,
  parseUserId,
  type UserId,
  utf8Length,
} from '@latchkey/protocol'
import { Type } from 'typebox'
import { inTurns } from '../../lib/turns.ts'
import { invalidParam, quoted } from '../../matrix-error.ts'
import type { ClaimedKey, ClaimResult, ClaimTarget } from '../../pool/commands.ts'
import type { Context } from '../../context.ts'
import type { Origin } from '../../observe/security-log.ts'
import { endpoint, JsonText, largeBody } from '../endpoint.ts'
import { unreachable } from './unreachable.ts'

/** Devices per transaction and turn of the event loop: about 5 ms. A claim of more is several transactions. */
const DEVICES_PER_TURN = 200

export const keysClaim = endpoint({
  method: 'POST',
  path: '/keys/claim',
  bodyBytes: largeBody,
  body: Type.Object({
    one_time_keys: Type.Optional(
      Type.Union([
        Type.Object({}, { additionalProperties: Type.Object({}, { additionalProperties: Type.String() }) }),
        Type.Null(),
      ]),
    ),
    // The timeout for remote servers; unused without federation, so its type is not checked.
    timeout: Type.Optional(Type.Unknown()),
  }),
  async handle({ context, session, body, origin }) {
    const { targets, failures } = sortTargets(context, body.one_time_keys ?? {})
    const now = context.now()
    const { userId: user, deviceId } = session
    const claimer = { by: 'user', id: user, name: `${user} ${deviceId}` } as const
    const keys: (ClaimedKey | null | undefined)[] = []
    for await (const some of inTurns(targets, DEVICES_PER_TURN)) {
      keys.push(...(await context.pools.claim({ claimer, targets: some, now })))
    }
    reportRateLimited(context, origin, targets, keys, now)
    return new JsonText(`{"one_time_keys":${encode(targets, keys)},"failures":${JSON.stringify(failures)}}`)
  },
})

/**
 * Local devices to claim from, and the servers that cannot be reached. Invalid device IDs and algorithms are skipped
 * like unknown ones.
 */
function sortTargets(context: Context, wanted: object): { targets: ClaimTarget[]; failures: object } {
  const targets: ClaimTarget[] = []
  const servers = new Set<string>()
  for (const [user, devices] of Object.entries(wanted)) {
    const parsed = parseUserId(user)
    if (parsed === undefined) throw invalidParam(`one_time_keys names ${quoted(user)}; expected user IDs.`)
    const { userId, serverName } = parsed
    for (const [device, algorithm] of Object.entries(devices as Record<string, string>)) {
      if (serverName !== context.serverName) {
        servers.add(serverName)
        continue
      }
      const deviceId = parseDeviceId(device)
      if (deviceId === undefined || utf8Length(algorithm) > MAX_ALGORITHM_BYTES) continue
      targets.push({ userId, deviceId, algorithm: algorithm as Algorithm })
    }
  }
  return { targets, failures: unreachable(servers) }
}

/** Reports attempts to drain a pool: the claiming user and the target device (key-pool.md "Claim"). */
function reportRateLimited(
  { limitedClaims, securityLog }: Context,
  origin: Origin,
  targets: readonly ClaimTarget[],
  keys: ClaimResult,
  now: number,
): void {
  for (const [i, target] of targets.entries()) {
    if (keys[i] !== null && keys[i]?.rateLimited !== true) continue
    const count = limitedClaims.note(origin.userId ?? '', target, now)
    if (count === 0) continue
    const { userId, deviceId } = target
    const details = { targetUserId: userId, targetDeviceId: deviceId, count }
    securityLog.note('claim_budget_exceeded', origin, details)
  }
}

/** Relies on the targets of one user being adjacent. Users and devices without a key are omitted. */
function encode(targets: readonly ClaimTarget[], keys: ClaimResult): string {
  let text = ''
  let user: UserId | undefined
  for (const [i, target] of targets.entries()) {
    const key = keys[i]
    if (key === undefined || key === null) continue
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
