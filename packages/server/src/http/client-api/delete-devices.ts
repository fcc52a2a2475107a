/** POST /delete_devices: several of the user's devices at once, after authentication. Unknown IDs are passed over. */
import type { DeviceId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { endpoint } from '../endpoint.ts'

export const deleteDevices = endpoint({
  method: 'POST',
  path: '/delete_devices',
  body: Type.Object({ auth: Type.Optional(Type.Unknown()), devices: Type.Array(Type.String()) }),
  async handle({ context, session, body }) {
    await context.interactiveAuth.require({
      auth: body.auth,
      flows: [['m.login.password']],
      operation: `POST /delete_devices ${session.userId}`,
      session,
    })
    await context.store.devices.remove(session.userRef, body.devices as DeviceId[], context.now())
    return {}
  },
})
