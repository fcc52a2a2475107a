/** What a guard says of a message that could not be decrypted, and of a key: no more than it knows. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { preKeyContent } from '../support/guard/messages.ts'
import { publicKey } from '../support/guard/model-sdk.ts'
import { startScene } from '../support/guard/scene.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

const SENDER = '@a:test.example'

test('a message that names no key, one that is damaged, and what is no message', async () => {
  const { sdk, guard, told } = await startScene(server.url, 'kinds')
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
  assert.equal(told('undecryptable')[0]?.sender, SENDER)
})

test('a log line with several keys: the one that the ledger has', async () => {
  const { sdk, guard, told } = await startScene(server.url, 'log-line')
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
  assert.equal(new Set(told('undecryptable').map((event) => event.key)).size, 1)
  assert.equal(await guard.reportUndecryptable(`sender_key="curve25519:${publicKey()}"`), 'unknown_key')
})

test('a key that one message named, decrypted or not: explain and report say the same, and no more than that', async () => {
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
  assert.doesNotMatch(explained?.text ?? '', /decrypted with it before/)
  // Another session with the same key is told apart.
  const other = { ...event, content: preKeyContent({ oneTimeKey: key, ownKey: sdk.curve25519 }) }
  assert.equal(await guard.reportUndecryptable(other), 'seen_twice')
})
