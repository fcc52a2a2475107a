/** POST /delete_devices: several of the user's devices at once, after authentication. Unknown IDs are passed over. */
import type { DeviceId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { invalidParam } from '../../matrix-error.ts'
import { endpoint } from '../endpoint.ts'

/** A user's devices are as many by default; the work of one request is bounded, whatever the configuration. */
const MAX_DEVICES = 1000
/** For as many IDs of 255 bytes. */
const BODY_BYTES = 512 * 1024

export const deleteDevices = endpoint({
  method: 'POST',
  path: '/delete_devices',
  bodyBytes: () => BODY_BYTES,
  body: Type.Object({ auth: Type.Optional(Type.Unknown()), devices: Type.Array(Type.String()) }),
  async handle({ context, session, body }) {
    const { length } = body.devices
    if (length > MAX_DEVICES) {
      throw invalidParam(`devices names ${length} devices; at most ${MAX_DEVICES} are deleted at once.`)
    }
    await context.interactiveAuth.require({
      auth: body.auth,
      flows: [['m.login.password']],
      operation: `POST /delete_devices ${session.userId}`,
      session,
    })
    await context.store.devices.remove(session, body.devices as DeviceId[], context.now())
    return {}
  },
})
