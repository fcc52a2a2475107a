/**
 * Sends a message on each key that a server would issue, which shows whether the keys are usable. One sender with a raw
 * libolm account opens all sessions.
 */
import { canonicalJson } from '@latchkey/protocol'
import type { ClaimedKey, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { MESSAGE_TYPE, type Peer } from '@latchkey/testing/olm-device.ts'
import type { Olm } from './load-olm.ts'

const ALGORITHM = 'm.olm.v1.curve25519-aes-sha2'
/** Differs from the session's device, which has its own keys on the server. */
const DEVICE = 'DRAIN'

export type Drained = { readonly text: string; readonly key: ClaimedKey }

/** Claims `count` keys of a device and sends it a message on each. */
export async function drain(olm: Olm, sender: MatrixSession, to: Peer, count: number): Promise<Drained[]> {
  const { userId, deviceId } = to
  const asked = await sender.ok('POST', '/v3/keys/query', { device_keys: { [userId]: [deviceId] } })
  const { keys } = asked.device_keys[userId][deviceId]
  const identity = { curve25519: keys[`curve25519:${deviceId}`], ed25519: keys[`ed25519:${deviceId}`] }
  const account = new olm.Account()
  try {
    account.create()
    const own = JSON.parse(account.identity_keys())
    const device = {
      user_id: sender.userId,
      device_id: DEVICE,
      algorithms: [ALGORITHM],
      keys: { [`curve25519:${DEVICE}`]: own.curve25519, [`ed25519:${DEVICE}`]: own.ed25519 },
    }
    const signature = account.sign(canonicalJson(device))
    const sender_device_keys = {
      ...device,
      signatures: { [sender.userId]: { [`ed25519:${DEVICE}`]: signature } },
    }
    const claimed = await sender.claimMany(userId, deviceId, count)
    const drained = claimed.map((key, i) => ({ key, text: `drained ${i + 1}` }))
    for (const { key, text } of drained) {
      const session = new olm.Session()
      session.create_outbound(account, identity.curve25519, key.key)
      const ciphertext = session.encrypt(
        canonicalJson({
          type: MESSAGE_TYPE,
          content: { text },
          sender: sender.userId,
          recipient: userId,
          recipient_keys: { ed25519: identity.ed25519 },
          keys: { ed25519: own.ed25519 },
          sender_device_keys,
        }),
      )
      session.free()
      const content = {
        algorithm: ALGORITHM,
        sender_key: own.curve25519,
        ciphertext: { [identity.curve25519]: ciphertext },
      }
      const path = `/v3/sendToDevice/m.room.encrypted/${crypto.randomUUID()}`
      await sender.ok('PUT', path, { messages: { [userId]: { [deviceId]: content } } })
    }
    return drained
  } finally {
    account.free()
  }
}
