/** POST /delete_devices: deletes several of the user's devices after authentication. Unknown IDs are ignored. */
import type { DeviceId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { endpoint } from '../endpoint.ts'

/** Fits 1 000 IDs (costs.ts) of 255 bytes. */
const BODY_BYTES = 512 * 1024

export const deleteDevices = endpoint({
  method: 'POST',
  path: '/delete_devices',
  bodyBytes: () => BODY_BYTES,
  interactive: true,
  body: Type.Object({ auth: Type.Optional(Type.Unknown()), devices: Type.Array(Type.String()) }),
  async handle({ context, session, body, confirm, origin }) {
    const { finishes } = (await confirm(['m.login.password'])).finishing({})
    await context.store.devices.remove(session, body.devices as DeviceId[], context.now(), finishes)
    context.securityLog.note('devices_removed', origin, { devices: body.devices, count: body.devices.length })
    return {}
  },
})
