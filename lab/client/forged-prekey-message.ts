/** Forged pre-key messages: well-formed bytes that name a chosen one-time key but are not encrypted. */
import { randomBytes } from 'node:crypto'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import type { OlmDevice, Peer } from '@latchkey/testing/olm-device.ts'

const VERSION = 3
const MAC_BYTES = 8

/** Sends a device an Olm message of type 0 that names `oneTimeKey` and cannot be decrypted. */
export async function sendForged(attacker: OlmDevice, to: Peer, oneTimeKey: string): Promise<void> {
  const [senderKey, identity] = [randomBytes(32), await identityOf(attacker, to)]
  const content = {
    algorithm: 'm.olm.v1.curve25519-aes-sha2',
    sender_key: unpadded(senderKey),
    ciphertext: {
      [identity]: { type: 0, body: preKeyMessage(Buffer.from(oneTimeKey, 'base64'), senderKey) },
    },
  }
  await sendContent(attacker, to, content)
}

/** Sends recorded content again, as a server or an attacker could. */
export async function sendContent(sender: OlmDevice, to: Peer, content: AnyJson): Promise<void> {
  const path = `/v3/sendToDevice/m.room.encrypted/${randomBytes(6).toString('hex')}`
  await sender.session.ok('PUT', path, { messages: { [to.userId]: { [to.deviceId]: content } } })
}

/** 32 random bytes, not the key of any device. */
export function randomKey(): string {
  return unpadded(randomBytes(32))
}

async function identityOf(asker: OlmDevice, { userId, deviceId }: Peer): Promise<string> {
  const answer = await asker.session.ok('POST', '/v3/keys/query', { device_keys: { [userId]: [deviceId] } })
  return answer.device_keys[userId][deviceId].keys[`curve25519:${deviceId}`]
}

/** Olm specification, "Pre-key messages" and "Normal messages". */
function preKeyMessage(oneTimeKey: Buffer, identityKey: Buffer): string {
  const message = Buffer.concat([
    Buffer.from([VERSION]),
    field(0x0a, randomBytes(32)),
    Buffer.from([0x10, 0]),
    field(0x22, randomBytes(32)),
    randomBytes(MAC_BYTES),
  ])
  const whole = [
    Buffer.from([VERSION]),
    field(0x0a, oneTimeKey),
    field(0x12, randomBytes(32)),
    field(0x1a, identityKey),
    field(0x22, message),
  ]
  return unpadded(Buffer.concat(whole))
}

function field(tag: number, bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([tag, bytes.length]), bytes])
}

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
