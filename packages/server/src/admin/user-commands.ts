/** The administration commands about users, their devices and sessions. All of them can be repeated. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import { Type } from 'typebox'
import { requireGoodPassword } from '../accounts/password-policy.ts'
import { registerAccount, requireFreeName } from '../accounts/register-account.ts'
import { invalidParam } from '../matrix-error.ts'
import { adminCommand } from './command.ts'
import { localpartOf, namedUser } from './named-user.ts'
import { nextOf, PageInput } from './page.ts'
import type { UserEntry } from './port.ts'

const Name = Type.String({ maxLength: 255 })
const OneUser = Type.Object({ name: Name })
const MAX_DEVICES = 1000

export type ShownUser = {
  readonly userId: UserId
  readonly state: 'active' | 'locked' | 'deactivated'
  readonly createdTs: number
  readonly lockedTs: number | null
  readonly deactivatedTs: number | null
  readonly devices: number
}

function show({ userId, createdTs, lockedTs, deactivatedTs, devices }: UserEntry): ShownUser {
  const ended = deactivatedTs === undefined ? undefined : 'deactivated'
  return {
    userId,
    state: ended ?? (lockedTs === undefined ? 'active' : 'locked'),
    createdTs,
    lockedTs: lockedTs ?? null,
    deactivatedTs: deactivatedTs ?? null,
    devices,
  }
}

export const USER_COMMANDS = {
  /** The ID that a new account of this name would have; refuses a name that is taken, ahead of the password prompt. */
  'user free-name': adminCommand({
    input: OneUser,
    run: async (deps, { name }) => ({
      output: { userId: await requireFreeName(deps, localpartOf(deps, name)) },
    }),
  }),
  'user add': adminCommand({
    input: Type.Object({ name: Name, password: Type.String() }),
    async run(deps, { name, password }) {
      const { userId } = await registerAccount(deps, { localpart: localpartOf(deps, name), password })
      return { output: { userId }, changed: userId }
    },
  }),
  'user list': adminCommand({
    input: PageInput,
    async run({ admin }, { after, limit }) {
      const users = (await admin.users({ after, limit })).map(show)
      return { output: { users, next: nextOf(users, limit, ({ userId }) => userId) } }
    },
  }),
  'user show': adminCommand({
    input: OneUser,
    async run(deps, { name }) {
      const user = await namedUser(deps, name)
      const devices = (await deps.devices.list(user.userRef)).map((device) => ({
        deviceId: device.deviceId,
        displayName: device.displayName ?? null,
        lastSeenTs: device.lastSeenTs,
        lastSeenIp: device.lastSeenIp ?? null,
      }))
      return { output: { ...show(user), devices } }
    },
  }),
  'user lock': lockCommand(true),
  'user unlock': lockCommand(false),
  'user deactivate': adminCommand({
    input: OneUser,
    async run(deps, { name }) {
      const { userRef, userId, deactivatedTs, devices } = await namedUser(deps, name)
      const changed = deactivatedTs === undefined
      if (changed) await deps.accounts.deactivate({ userRef, now: deps.now() })
      return { output: { userId, changed, removedDevices: devices }, ...(changed && { changed: userId }) }
    },
  }),
  'user reset-password': adminCommand({
    input: Type.Object({ name: Name, password: Type.String(), keepSessions: Type.Boolean() }),
    async run(deps, { name, password, keepSessions }) {
      const { userRef, userId, deactivatedTs } = await namedUser(deps, name)
      if (deactivatedTs !== undefined)
        throw invalidParam(`${userId} is deactivated; it cannot have a password.`)
      requireGoodPassword(password, deps.passwordMinLength)
      const removedDevices = await deps.admin.resetPassword({
        user: userRef,
        passwordHash: await deps.passwords.hash(password),
        endSessions: !keepSessions,
        now: deps.now(),
      })
      return { output: { userId, removedDevices }, changed: userId }
    },
  }),
  'session revoke': adminCommand({
    input: OneUser,
    async run(deps, { name }) {
      const { userRef, userId } = await namedUser(deps, name)
      const removedDevices = await deps.admin.removeDevices(userRef, { kind: 'all' }, deps.now())
      return { output: { userId, removedDevices }, ...(removedDevices > 0 && { changed: userId }) }
    },
  }),
  'device delete': adminCommand({
    input: Type.Object({ name: Name, deviceIds: Type.Array(Name, { minItems: 1, maxItems: MAX_DEVICES }) }),
    async run(deps, { name, deviceIds }) {
      const { userRef, userId } = await namedUser(deps, name)
      const existing = new Set<string>((await deps.devices.list(userRef)).map(({ deviceId }) => deviceId))
      const named = [...new Set(deviceIds)]
      const removed = named.filter((id) => existing.has(id)) as DeviceId[]
      const unknown = named.filter((id) => !existing.has(id))
      if (removed.length > 0)
        await deps.admin.removeDevices(userRef, { kind: 'named', deviceIds: removed }, deps.now())
      const changed = removed.length > 0 && { changed: `${userId} ${removed.join(' ')}` }
      return { output: { userId, removed, unknown }, ...changed }
    },
  }),
} as const

function lockCommand(lock: boolean) {
  return adminCommand({
    input: OneUser,
    async run(deps, { name }) {
      const { userRef, userId } = await namedUser(deps, name)
      const changed = await deps.admin.setLocked(userRef, lock ? deps.now() : undefined)
      return { output: { userId, changed }, ...(changed && { changed: userId }) }
    },
  })
}
