/**
 * Does the server know this device by the identity that this account has? If it has another one, the store was lost under
 * an old device ID: other devices keep the former identity and will never trust this one, so no key is uploaded. The
 * device is dead and the user logs in as a new one (desync taxonomy: "crypto store wiped, credentials kept").
 */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import { accountOf, type Step } from './step.ts'

/** Takes in an answer of `/keys/query` about the own device. */
export function readIdentity(step: Step, answer: JsonObject): void {
  const account = accountOf(step.transaction)
  const device = member(member(answer['device_keys'], account.userId), account.deviceId)
  const keys = member(device, 'keys')
  const theirs = {
    curve25519: member(keys, `curve25519:${account.deviceId}`),
    ed25519: member(keys, `ed25519:${account.deviceId}`),
  }
  if (theirs.curve25519 === undefined && theirs.ed25519 === undefined) {
    step.patch({ deviceKeys: 'missing' })
  } else if (theirs.curve25519 === account.curve25519 && theirs.ed25519 === account.ed25519) {
    step.patch({ deviceKeys: 'published' })
  } else {
    const why = `the server knows ${account.deviceId} by another identity, whose keys are lost`
    step.tell('device_dead', { why })
    step.patch({ dead: why })
  }
}

function member(value: unknown, name: string): unknown {
  return isJsonObject(value) && Object.hasOwn(value, name) ? value[name] : undefined
}
