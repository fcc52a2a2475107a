/** POST /delete_devices: deletes several of the user's devices after authentication. Unknown IDs are ignored. */
import type { DeviceId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { invalidParam } from '../../matrix-error.ts'
import { endpoint } from '../endpoint.ts'

/** Bounds the work of one request, independent of the configured maximum per user (1000 by default). */
const MAX_DEVICES = 1000
/** Fits MAX_DEVICES IDs of 255 bytes. */
const BODY_BYTES = 512 * 1024

export const deleteDevices = endpoint({
  method: 'POST',
  path: '/delete_devices',
  bodyBytes: () => BODY_BYTES,
  interactive: true,
  body: Type.Object({ auth: Type.Optional(Type.Unknown()), devices: Type.Array(Type.String()) }),
  async handle({ context, session, body, confirm, origin }) {
    const { length } = body.devices
    if (length > MAX_DEVICES) {
      throw invalidParam(`devices names ${length} devices; at most ${MAX_DEVICES} are deleted at once.`)
    }
    const { finishes } = (await confirm(['m.login.password'])).finishing({})
    await context.store.devices.remove(session, body.devices as DeviceId[], context.now(), finishes)
    context.securityLog.note('devices_removed', origin, { devices: body.devices, count: length })
    return {}
  },
})
