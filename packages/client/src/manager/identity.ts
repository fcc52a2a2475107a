/**
 * Checks that the server knows this device by this account's identity. If it has another identity, the store was lost
 * under an existing device ID: other devices keep the former identity and will never trust this one. No key is uploaded
 * then; the account is unusable and the user must log in as a new device.
 */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import { accountOf, type Step } from './step.ts'

/**
 * Applies an answer of `/keys/query` about this device. A malformed answer changes nothing. Another identity must be
 * reported twice before the account is declared unusable, because that is final.
 *
 * @returns whether the answer was well-formed
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
    const detail = `the server knows ${account.deviceId} by another identity, whose keys are lost`
    step.emit('account_unusable', { detail })
    step.patch({ unusableReason: detail })
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
