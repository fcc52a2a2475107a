/** Rules of a login on a device: new, existing, or removed before. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { MatrixError } from '../matrix-error.ts'
import type { DeviceRef, UserRef } from '../session.ts'
import { decideLogin, type LoginDecision, type LoginFacts } from './open-session.ts'

const LOGIN = {
  account: { userRef: 1 as UserRef, userId: '@alice:test.example' as UserId, passwordHash: 'hash' },
  deviceId: 'DEV' as DeviceId,
}
const FACTS: LoginFacts = {
  passwordHash: 'hash',
  isLocked: false,
  device: undefined,
  namesKey: false,
  deviceCount: 0,
}
const EXISTING = { deviceRef: 7 as DeviceRef, isRemoved: false }
const REMOVED = { deviceRef: 8 as DeviceRef, isRemoved: true }

function decide(facts: Partial<LoginFacts>): LoginDecision | string {
  try {
    return decideLogin({ ...FACTS, ...facts }, LOGIN, { devicesPerUser: 3 })
  } catch (error) {
    if (error instanceof MatrixError)
      return `${error.status} ${error.errcode}: ${error.message.split(' ').slice(0, 2).join(' ')}`
    throw error
  }
}

const CREATE = { kind: 'create', endsTokens: false, changesList: true } as const
const RENEW = { kind: 'renew', deviceRef: EXISTING.deviceRef, endsTokens: true, changesList: false } as const
const RESTORE = {
  kind: 'restore',
  deviceRef: REMOVED.deviceRef,
  endsTokens: false,
  changesList: true,
} as const

const OTHER_PASSWORD = '403 M_FORBIDDEN: The password'
const NAME_OF_KEY = '400 M_INVALID_PARAM: device_id "DEV"'
const LOCKED = '403 M_USER_LOCKED: This account'
const TOO_MANY = '400 M_INVALID_PARAM: This account'

describe('a login', () => {
  const rows: readonly (readonly [string, Partial<LoginFacts>, LoginDecision | string])[] = [
    ['under an unknown ID creates a device', {}, CREATE],
    ['on an existing device renews it', { device: EXISTING }, RENEW],
    ['on a removed device restores it', { device: REMOVED }, RESTORE],
    ['creates the last device that is allowed', { deviceCount: 2 }, CREATE],
    ['creates no device above the limit', { deviceCount: 3 }, TOO_MANY],
    ['restores no device above the limit', { deviceCount: 3, device: REMOVED }, TOO_MANY],
    ['renews a device regardless of their number', { deviceCount: 4, device: EXISTING }, RENEW],
    ['creates no device with the name of a key', { namesKey: true }, NAME_OF_KEY],
    ['restores no device with the name of a key', { namesKey: true, device: REMOVED }, NAME_OF_KEY],
    ['renews a device although a key has its name', { namesKey: true, device: EXISTING }, RENEW],
    ['names the key before the number of devices', { namesKey: true, deviceCount: 3 }, NAME_OF_KEY],
    ['after a change of the password is refused', { passwordHash: 'new' }, OTHER_PASSWORD],
    [
      'after a change of the password renews no device',
      { passwordHash: 'new', device: EXISTING },
      OTHER_PASSWORD,
    ],
    ['of a locked user is refused', { isLocked: true }, LOCKED],
    ['of a locked user renews no device', { isLocked: true, device: EXISTING }, LOCKED],
    ['checks the password before the lock', { isLocked: true, passwordHash: 'new' }, OTHER_PASSWORD],
    ['checks the password first', { passwordHash: 'new', namesKey: true, deviceCount: 3 }, OTHER_PASSWORD],
  ]
  for (const [name, facts, expected] of rows) test(name, () => assert.deepEqual(decide(facts), expected))
})
