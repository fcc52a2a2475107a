/**
 * The user's own devices: GET /devices, and GET, PUT and DELETE /devices/DEVICE (client-server API, "Device
 * management").
 */
import type { DeviceId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { requireDisplayName } from '../../accounts/display-name.ts'
import type { Device } from '../../devices/port.ts'
import { notFound, quoted } from '../../matrix-error.ts'
import type { Session } from '../../session.ts'
import { endpoint } from '../endpoint.ts'
import { OptionalString } from './optional-string.ts'

const ONE = '/devices/:deviceId'

export const listDevices = endpoint({
  method: 'GET',
  path: '/devices',
  async handle({ context, session }) {
    const devices = await context.store.devices.list(session.userRef)
    return { devices: devices.map((device) => encode(session, device)) }
  },
})

export const getDevice = endpoint({
  method: 'GET',
  path: ONE,
  async handle({ context, session, params }) {
    const deviceId = deviceIdOf(params)
    const device = await context.store.devices.get(session.userRef, deviceId)
    if (device === undefined) throw noSuchDevice(deviceId)
    return encode(session, device)
  },
})

export const putDevice = endpoint({
  method: 'PUT',
  path: ONE,
  body: Type.Object({ display_name: OptionalString }),
  async handle({ context, session, params, body }) {
    const { devices } = context.store
    const deviceId = deviceIdOf(params)
    const name = body.display_name
    const found =
      typeof name === 'string'
        ? await devices.rename(session, deviceId, requireDisplayName(name))
        : (await devices.get(session.userRef, deviceId)) !== undefined
    if (!found) throw noSuchDevice(deviceId)
    return {}
  },
})

/** Idempotent: an unknown device answers 200, after the same authentication. */
export const deleteDevice = endpoint({
  method: 'DELETE',
  path: ONE,
  interactive: true,
  body: Type.Object({ auth: Type.Optional(Type.Unknown()) }),
  async handle({ context, session, params, confirm, origin }) {
    const deviceId = deviceIdOf(params)
    const { finishes } = (await confirm(['m.login.password'])).finishing({})
    await context.store.devices.remove(session, [deviceId], context.now(), finishes)
    context.securityLog.note('devices_removed', origin, { devices: [deviceId], count: 1 })
    return {}
  },
})

/** Not validated: an invalid ID is an unknown device. */
function deviceIdOf(params: Readonly<Record<string, string>>): DeviceId {
  return (params['deviceId'] ?? '') as DeviceId
}

function noSuchDevice(deviceId: DeviceId): Error {
  return notFound(`You have no device ${quoted(deviceId)}.`)
}

/**
 * Always includes every member: matrix-nio rejects a list that lacks one. Other homeservers send null for unknown
 * values, which the specification's schema forbids; an empty string satisfies both.
 */
function encode({ userId }: Session, device: Device): object {
  return {
    device_id: device.deviceId,
    user_id: userId,
    display_name: device.displayName ?? '',
    last_seen_ts: device.lastSeenTs,
    last_seen_ip: device.lastSeenIp ?? '',
  }
}
