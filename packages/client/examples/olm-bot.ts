/**
 * An echo bot on a raw Olm account, device to device. All durable state is in one file, so the bot can be killed at any
 * moment and restarted.
 *
 *     node olm-bot.ts http://127.0.0.1:8008 bot PASSWORD ./bot.db
 */
import { readFileSync, writeFileSync } from 'node:fs'
import Olm from '@matrix-org/olm'
import { type DecryptedMessage, KeyManager } from '@latchkey/client'
import { libolmAccounts } from '@latchkey/client/libolm'
import { fileStore } from '@latchkey/client/node'

type Login = { readonly user_id: string; readonly device_id: string; readonly access_token: string }
type DeviceKeys = { readonly device_id: string; readonly keys: Readonly<Record<string, string>> }
type Payload = {
  readonly type: string
  readonly sender: string
  readonly recipient: string
  readonly recipient_keys: { readonly ed25519: string }
  readonly keys: { readonly ed25519: string }
  readonly content: Readonly<Record<string, unknown>>
}

const [baseUrl = 'http://127.0.0.1:8008', user = 'bot', password = '', file = './bot.db'] =
  process.argv.slice(2)

await Olm.init()
const login = await logInOnce(`${file}.login.json`)
const manager = await KeyManager.open({
  store: fileStore(file),
  accounts: libolmAccounts(Olm, 'the key that the pickles are encrypted with'),
  userId: login.user_id,
  deviceId: login.device_id,
  onEvent: ({ severity, type, message }) => console.log(`[${severity}] ${type}: ${message}`),
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void manager.stop())

console.log(`${login.user_id} ${login.device_id} is running`)
await manager.start({
  baseUrl,
  accessToken: login.access_token,
  async onMessages(messages) {
    for (const message of messages) await echo(message)
  },
})
manager.close()

/** Logs in once and keeps the login next to the account: a second login would be a new device. */
async function logInOnce(path: string): Promise<Login> {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Login
  } catch {
    const made = await call<Login>('POST', '/v3/login', {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user },
      password,
    })
    writeFileSync(path, JSON.stringify(made), { mode: 0o600 })
    return made
  }
}

async function echo({ id, sender, senderKey, plaintext }: DecryptedMessage): Promise<void> {
  const payload = JSON.parse(plaintext) as Payload
  const device = await deviceWith(sender, senderKey)
  // The payload's sender is authentic if the sending device's published keys are those of the message.
  const authentic =
    device?.keys[`ed25519:${device.device_id}`] === payload.keys.ed25519 &&
    payload.sender === sender &&
    payload.recipient === login.user_id &&
    payload.recipient_keys.ed25519 === manager.identityKeys.ed25519
  if (device === undefined || !authentic) return console.log(`a message from ${sender} is not authentic`)
  console.log(`${sender}: ${JSON.stringify(payload.content)}`)
  const answer = {
    type: payload.type,
    sender: login.user_id,
    recipient: sender,
    recipient_keys: { ed25519: payload.keys.ed25519 },
    keys: { ed25519: manager.identityKeys.ed25519 },
    content: payload.content,
  }
  const ciphertext = await manager.encrypt(senderKey, JSON.stringify(answer))
  const content = {
    algorithm: 'm.olm.v1.curve25519-aes-sha2',
    sender_key: manager.identityKeys.curve25519,
    ciphertext: { [senderKey]: ciphertext },
  }
  // The message's ID is the transaction ID: a message handled twice is answered once.
  await call('PUT', `/v3/sendToDevice/m.room.encrypted/${encodeURIComponent(id)}`, {
    messages: { [sender]: { [device.device_id]: content } },
  })
}

async function deviceWith(userId: string, curve25519: string): Promise<DeviceKeys | undefined> {
  const { device_keys: found } = await call<{ device_keys: Record<string, Record<string, DeviceKeys>> }>(
    'POST',
    '/v3/keys/query',
    { device_keys: { [userId]: [] } },
  )
  return Object.values(found[userId] ?? {}).find(
    (device) => device.keys[`curve25519:${device.device_id}`] === curve25519,
  )
}

async function call<Answer>(method: string, path: string, body: unknown): Promise<Answer> {
  const response = await fetch(`${baseUrl}/_matrix/client${path}`, {
    method,
    headers: {
      'content-type': 'application/json',
      ...(path !== '/v3/login' && { authorization: `Bearer ${login.access_token}` }),
    },
    body: JSON.stringify(body),
  })
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  return (await response.json()) as Answer
}
