/**
 * Does the server know this device by the identity that this account has? If it has another one, the store was lost under
 * an old device ID: other devices keep the former identity and will never trust this one, so no key is uploaded. The
 * device is dead and the user logs in as a new one (desync taxonomy: "crypto store wiped, credentials kept").
 */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import { accountOf, type Step } from './step.ts'

/**
 * Takes in an answer of `/keys/query` about the own device. One that makes no sense changes nothing, and another identity
 * has to be named twice: a device is declared dead for good.
 *
 * @returns whether it made sense
 */
export function readIdentity(step: Step, answer: JsonObject): boolean {
  const account = accountOf(step.transaction)
  const users = answer['device_keys']
  const devices = member(users, account.userId) ?? {}
  if (!isJsonObject(users) || !isJsonObject(devices)) return false
  const device = member(devices, account.deviceId)
  if (device === undefined) {
    step.patch({ deviceKeys: 'missing', suspected: undefined })
    return true
  }
  const keys = member(device, 'keys')
  const curve25519 = member(keys, `curve25519:${account.deviceId}`)
  const ed25519 = member(keys, `ed25519:${account.deviceId}`)
  if (!isPublicKey(curve25519) || !isPublicKey(ed25519)) return false
  const named = `${curve25519} ${ed25519}`
  if (curve25519 === account.curve25519 && ed25519 === account.ed25519) {
    step.patch({ deviceKeys: 'published', suspected: undefined })
  } else if (named === step.status.suspected) {
    const why = `the server knows ${account.deviceId} by another identity, whose keys are lost`
    step.emit('device_dead', { why })
    step.patch({ dead: why })
  } else step.patch({ suspected: named })
  return true
}

/** 32 bytes in base64, padded or not. */
function isPublicKey(value: unknown): value is string {
  return typeof value === 'string' && /^[A-Za-z0-9+/]{43}=?$/.test(value)
}

function member(value: unknown, name: string): unknown {
  return isJsonObject(value) && Object.hasOwn(value, name) ? value[name] : undefined
}
