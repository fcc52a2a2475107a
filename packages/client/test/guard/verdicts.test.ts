/** A guard's verdicts on undecryptable messages and on keys: they claim no more than it knows. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { REFUSING, startTestServer } from '@latchkey/testing/test-server.ts'
import { preKeyContent } from '../support/guard/messages.ts'
import { publicKey } from '../support/guard/model-sdk.ts'
import { startScene } from '../support/guard/scene.ts'

const server = await startTestServer(REFUSING)
after(() => server[Symbol.asyncDispose]())

const SENDER = '@a:test.example'

test('a message without a key, a damaged one, and input that is not a message', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'kinds')
  await sdk.round()
  const content = preKeyContent({ oneTimeKey: publicKey(), ownKey: sdk.curve25519 })
  const event = (type: number, body: string): unknown => ({
    type: 'm.room.encrypted',
    sender: SENDER,
    content: { ...content, ciphertext: { [sdk.curve25519]: { type, body } } },
  })
  assert.equal(await guard.reportUndecryptable(event(1, 'AwoA')), 'no_session')
  assert.equal(await guard.reportUndecryptable(event(0, 'garbage!')), 'malformed')
  assert.equal(
    await guard.reportUndecryptable({ type: 'm.room.encrypted', sender: SENDER, content }),
    'unknown_key',
  )
  for (const nothing of [{}, null, 7, 'no key in it']) {
    assert.equal(await guard.reportUndecryptable(nothing), 'malformed')
  }
  assert.equal(emitted('undecryptable')[0]?.sender, SENDER)
})

test('of several keys in a log line, the verdict is on the one in the ledger', async () => {
  const { sdk, guard, emitted } = await startScene(server.url, 'log-line')
  await sdk.round()
  const [key = ''] = sdk.state.privates
  const missing = `InboundCreation(MissingOneTimeKey("curve25519:${key}"))`
  for (const line of [
    `decrypt{sender_key="curve25519:${publicKey()}"}: ${missing}`,
    `${publicKey()} ${publicKey()} ${key}`,
    `${publicKey()} curve25519:${publicKey()} ${missing}`,
  ]) {
    assert.equal(await guard.reportUndecryptable(line), 'private_key_held')
  }
  assert.equal(new Set(emitted('undecryptable').map((event) => event.key)).size, 1)
  assert.equal(await guard.reportUndecryptable(`sender_key="curve25519:${publicKey()}"`), 'unknown_key')
})

test('for a key that one message named, explain and report agree, whether or not it was decrypted', async () => {
  const { sdk, guard } = await startScene(server.url, 'merely-named')
  await sdk.round()
  const alice = await MatrixSession.signIn(server.url, 'merely-alice', 'A')
  const { key } = await alice.claim(sdk.session.userId, sdk.session.deviceId)
  const content = preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 })
  await alice.ok('PUT', '/v3/sendToDevice/m.room.encrypted/1', {
    messages: { [sdk.session.userId]: { [sdk.session.deviceId]: content } },
  })
  await sdk.round()
  const event = { type: 'm.room.encrypted', sender: alice.userId, content }
  assert.equal(await guard.reportUndecryptable(event), 'seen_once')
  assert.equal(await guard.reportUndecryptable(key), 'seen_once')
  const [explained] = await guard.explain(key)
  assert.equal(explained?.verdict, 'seen_once')
  assert.doesNotMatch(explained?.text ?? '', /already decrypted with it/)
  // Another session with the same key is distinguished.
  const other = { ...event, content: preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 }) }
  assert.equal(await guard.reportUndecryptable(other), 'seen_twice')
})
