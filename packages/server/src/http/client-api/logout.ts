/** POST /logout and /logout/all: ends sessions, and the devices with their keys (client-server API). */
import { endpoint } from '../endpoint.ts'

export const logout = endpoint({
  method: 'POST',
  path: '/logout',
  sessionProvedByStore: true,
  allowsLocked: true,
  async handle({ context, session, origin }) {
    const { deviceId } = session
    await context.store.devices.remove(session, [deviceId], context.now())
    context.securityLog.note('devices_removed', origin, { devices: [deviceId], count: 1 })
    return {}
  },
})

export const logoutAll = endpoint({
  method: 'POST',
  path: '/logout/all',
  sessionProvedByStore: true,
  allowsLocked: true,
  async handle({ context, session, origin }) {
    await context.store.devices.removeAll(session, context.now())
    context.securityLog.note('devices_removed', origin, { devices: ['*'] })
    return {}
  },
})
