/** Parsing pre-key messages: libolm's own, and arbitrary input. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import Olm from '@matrix-org/olm'
import fc from 'fast-check'
import { decodeOlmEvent, parsePreKeyMessage } from './pre-key-message.ts'

const listeners = {
  error: process.listeners('uncaughtException'),
  rejection: process.listeners('unhandledRejection'),
}
await Olm.init()
for (const added of process.listeners('uncaughtException')) {
  if (!listeners.error.includes(added)) process.off('uncaughtException', added)
}
for (const added of process.listeners('unhandledRejection')) {
  if (!listeners.rejection.includes(added)) process.off('unhandledRejection', added)
}

const sender = new Olm.Account()
sender.create()
const receiver = new Olm.Account()
receiver.create()
after(() => {
  sender.free()
  receiver.free()
})

function message(): { body: string; oneTimeKey: string } {
  receiver.generate_one_time_keys(1)
  const [oneTimeKey = ''] = Object.values<string>(JSON.parse(receiver.one_time_keys()).curve25519)
  receiver.mark_keys_as_published()
  const session = new Olm.Session()
  session.create_outbound(sender, JSON.parse(receiver.identity_keys()).curve25519, oneTimeKey)
  const { body } = session.encrypt('hello')
  session.free()
  return { body, oneTimeKey }
}

test("the message contains the one-time key and the sender's identity key", () => {
  const { body, oneTimeKey } = message()
  const parsed = parsePreKeyMessage(body)
  assert.equal(parsed?.oneTimeKey, oneTimeKey)
  assert.equal(parsed.identityKey, JSON.parse(sender.identity_keys()).curve25519)
  assert.equal(parsed.baseKey.length, 43)
})

test('a message truncated anywhere is rejected', () => {
  const bytes = Buffer.from(message().body, 'base64')
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(parsePreKeyMessage(unpadded(bytes.subarray(0, length))), undefined)
  }
})

test('a message that readers could parse differently is rejected', () => {
  const { body } = message()
  const bytes = Buffer.from(body, 'base64')
  const key = bytes.subarray(1, 35)
  const [version, rest] = [bytes.subarray(0, 1), bytes.subarray(1)]
  for (const other of [
    Buffer.concat([version, key, rest]),
    Buffer.concat([bytes, key]),
    Buffer.concat([bytes, Buffer.from([0x28, 0x01])]),
    Buffer.concat([bytes, Buffer.from([0x2a, 0x00])]),
    Buffer.concat([bytes, Buffer.from([0x00])]),
  ]) {
    assert.equal(parsePreKeyMessage(unpadded(other)), undefined)
  }
  for (const text of [`${body}=`, ` ${body}`, `${body}\n`, body.replaceAll('+', '-')]) {
    if (text !== body) assert.equal(parsePreKeyMessage(text), undefined)
  }
})

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}

test('no input throws', () => {
  fc.assert(fc.property(fc.string(), (text) => void parsePreKeyMessage(text)))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      bytes[0] = 3
      parsePreKeyMessage(Buffer.from(bytes).toString('base64'))
    }),
  )
  fc.assert(fc.property(fc.jsonValue(), (event) => void decodeOlmEvent(event)))
})

test('only Olm ciphertexts of to-device events are read', () => {
  const content = {
    algorithm: 'm.olm.v1.curve25519-aes-sha2',
    sender_key: 'key',
    ciphertext: { mine: { type: 0, body: 'text' }, odd: { type: 7, body: 'text' }, worse: null },
  }
  const event = { type: 'm.room.encrypted', sender: '@bob:example.org', content }
  assert.deepEqual(decodeOlmEvent(event), {
    sender: '@bob:example.org',
    senderKey: 'key',
    ciphertexts: { mine: { type: 0, body: 'text' } },
  })
  assert.equal(decodeOlmEvent({ ...event, type: 'm.room.message' }), undefined)
  assert.equal(
    decodeOlmEvent({ ...event, content: { ...content, algorithm: 'm.megolm.v1.aes-sha2' } }),
    undefined,
  )
})
