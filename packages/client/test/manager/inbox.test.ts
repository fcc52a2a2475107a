/** Effects of messages on keys and sessions: good, damaged, forged, repeated and late messages. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { ManagerDevice } from '../support/manager/device.ts'
import { KeyManager, memoryStore, type OlmAccounts } from '../../src/index.ts'
import { libolmAccounts } from '../../src/libolm.ts'
import { loadOlm } from '../support/manager/olm.ts'
import {
  damaged,
  lengthened,
  namingFirst,
  reordered,
  Sender,
  withUnknownField,
} from '../support/manager/sender.ts'

let server: TestServer
before(async () => {
  server = await startTestServer()
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let pairs = 0
async function pair(more: Partial<Parameters<typeof ManagerDevice.ready>[1]> = {}) {
  const number = ++pairs
  const bob = await ManagerDevice.ready(server.url, { user: `bob${number}`, deviceId: 'BOB', ...more })
  return { bob, alice: await Sender.signIn(server.url, `alice${number}`) }
}

test('a damaged message that names a good key leaves the key, and the honest message is decrypted', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  const honest = alice.encryptWith(bob.target, key, 'honest')
  await alice.send(bob.target, damaged(alice.encryptWith(bob.target, key, 'forged')))
  await bob.catchUp()
  assert.deepEqual(bob.failures, [
    { sender: alice.session.userId, senderKey: alice.identityKey, verdict: 'private_key_held', key },
  ])
  await alice.send(bob.target, honest)
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['honest'])
})

test('a message that names an unknown key changes nothing, and the verdict says so', async () => {
  const { bob, alice } = await pair()
  const other = await ManagerDevice.signIn(server.url, { user: 'other', deviceId: 'OTHER' })
  const held = await bob.audit()
  const foreign = other.manager.identityKeys.curve25519
  await alice.send(bob.target, alice.encryptWith(bob.target, foreign, 'to nobody'))
  await alice.send(bob.target, { type: 0, body: 'no Olm message' })
  await alice.send(bob.target, { type: 1, body: 'AwoA' })
  await bob.catchUp()
  assert.deepEqual(
    bob.failures.map(({ verdict }) => verdict),
    ['unknown_key', 'malformed', 'no_session'],
  )
  assert.deepEqual(await bob.audit(), held)
})

test('a message on a key that was already used is a failure with that verdict', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'first session'))
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'second session'))
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['first session'])
  assert.deepEqual(
    bob.failures.map(({ verdict }) => verdict),
    ['already_used'],
  )
  const [explanation] = await bob.manager.explain(key)
  assert.equal(explanation?.state, 'used')
})

test('a pre-key message on the fallback key opens a session once, even after the session was dropped', async () => {
  const { bob, alice } = await pair({ limits: { sessionsPerPeer: 1 } })
  await alice.session.claimMany(bob.userId, bob.deviceId, 50)
  const { key, isFallback } = await alice.claim(bob.target)
  assert.ok(isFallback)
  const first = alice.encryptWith(bob.target, key, 'first')
  await alice.send(bob.target, first)
  await bob.sync()
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'second'))
  await bob.sync()
  assert.deepEqual(bob.texts(), ['first', 'second'])
  // The first session was displaced by the second. Its message is repeated, unchanged and in equivalent bytes.
  await alice.send(bob.target, first)
  await bob.sync()
  assert.deepEqual(bob.failures, [])
  await alice.send(bob.target, reordered(first))
  await bob.sync()
  assert.deepEqual(
    bob.failures.map(({ verdict }) => verdict),
    ['already_used'],
  )
  assert.deepEqual(bob.texts(), ['first', 'second'])
})

test('messages stay in the store until they are handled, and a new process receives them again', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'once more'))
  await bob.sync()
  await bob.crash()
  assert.deepEqual(
    (await bob.manager.unhandledMessages()).map(({ plaintext }) => plaintext),
    ['once more'],
  )
  await bob.manager.messagesHandled()
  await bob.crash()
  assert.deepEqual(await bob.manager.unhandledMessages(), [])
})

test('the next sync acknowledges handed-out messages', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'hello'))
  await bob.sync()
  await bob.sync()
  assert.deepEqual(bob.texts(), ['hello'])
  assert.deepEqual(await bob.manager.unhandledMessages(), [])
})

test('a conversation uses one session in both directions', async () => {
  const { bob } = await pair()
  const carol = await ManagerDevice.ready(server.url, { user: `carol${pairs}`, deviceId: 'CAROL' })
  const claimed = await carol.session.claim(bob.userId, bob.deviceId)
  assert.equal(await carol.manager.encrypt(bob.manager.identityKeys.curve25519, 'too early'), undefined)
  await carol.manager.startSession(bob.manager.identityKeys.curve25519, claimed.key)
  const say = async (from: ManagerDevice, to: ManagerDevice, text: string): Promise<number> => {
    const message = await from.manager.encrypt(to.manager.identityKeys.curve25519, text)
    assert.ok(message)
    const content = {
      algorithm: 'm.olm.v1.curve25519-aes-sha2',
      sender_key: from.manager.identityKeys.curve25519,
      ciphertext: { [to.manager.identityKeys.curve25519]: message },
    }
    await from.session.ok('PUT', `/v3/sendToDevice/m.room.encrypted/${text}`, {
      messages: { [to.userId]: { [to.deviceId]: content } },
    })
    await to.crash()
    await to.sync()
    await to.manager.messagesHandled()
    return message.type
  }
  assert.equal(await say(carol, bob, 'one'), 0)
  assert.equal(await say(bob, carol, 'two'), 1)
  assert.equal(await say(carol, bob, 'three'), 1)
  assert.deepEqual(bob.texts(), ['one', 'three'])
  assert.deepEqual(carol.texts(), ['two'])
})

test('sessions are limited per sender and in total', async () => {
  const { bob, alice } = await pair({ limits: { sessionsPerPeer: 3, sessions: 4 } })
  const write = async (sender: Sender, text: string): Promise<void> => {
    const { key } = await sender.claim(bob.target)
    await sender.send(bob.target, sender.encryptWith(bob.target, key, text))
  }
  for (const text of ['1', '2', '3', '4', '5']) await write(alice, text)
  const others = await Promise.all(['x', 'y', 'z'].map((name) => Sender.signIn(server.url, name)))
  for (const other of others) await write(other, 'hello')
  await bob.sync()
  assert.equal(bob.texts().length, 8)
  const { records } = await bob.store.read()
  assert.equal([...records.keys()].filter((key) => key.startsWith('session/')).length, 4)
})

test('a body longer than libolm accepts is malformed, and honest messages in the same sync are decrypted', async () => {
  const { bob, alice } = await pair()
  const mallory = await Sender.signIn(server.url, `mallory${pairs}`)
  const honest = alice.encryptWith(bob.target, (await alice.claim(bob.target)).key, 'honest')
  const { key } = await mallory.claim(bob.target)
  const { since } = bob.manager
  for (const named of [key, mallory.identityKey]) {
    for (const length of [48_700, 62_700, 64_900]) {
      const message = mallory.encryptWith(bob.target, named, 'long')
      await mallory.send(bob.target, lengthened(message, length))
    }
  }
  // Only the length of this one is wrong.
  await mallory.send(bob.target, mallory.encryptWith(bob.target, key, 'x'.repeat(46_000)))
  await alice.send(bob.target, honest)
  bob.rewriteSync = (answer) => {
    const [event] = answer.to_device?.events ?? []
    if (event === undefined) return answer
    const message = { [bob.manager.identityKeys.curve25519]: { type: 1, body: 'A'.repeat(70_000) } }
    const long = { ...event, content: { ...event.content, ciphertext: message } }
    return { ...answer, to_device: { events: [long, ...answer.to_device.events] } }
  }
  await bob.catchUp()
  assert.deepEqual(bob.texts(), ['honest'])
  assert.deepEqual(
    bob.failures.map(({ verdict }) => verdict),
    Array.from({ length: 8 }, () => 'malformed'),
  )
  assert.notEqual(bob.manager.since, since)
  await bob.assertSubset()
})

test('a message with 36 kB of text is decrypted', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'x'.repeat(35_000)))
  await bob.sync()
  assert.equal(bob.texts()[0]?.length, 35_000)
})

test('a text that is too long to sign is refused, and the account still works', async () => {
  const { bob } = await pair()
  await assert.rejects(bob.manager.sign('x'.repeat(200_000)), /at most 48000 bytes/)
  assert.equal((await bob.manager.sign('short')).length, 86)
})

test('when libolm fails nothing is acknowledged, and its state is not used any more', async () => {
  const { bob, alice } = await pair()
  const olm = await loadOlm()
  class Broken extends olm.Session {
    override decrypt(): string {
      throw new WebAssembly.RuntimeError('memory access out of bounds')
    }
  }
  const accounts: OlmAccounts = libolmAccounts(
    { Account: olm.Account, Session: Broken },
    'the pickle key of the tests',
  )
  const { userId, deviceId, store } = bob
  const manager = await KeyManager.open({ store, accounts, userId, deviceId })
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'not lost'))
  const { since } = manager
  const answer = await bob.askSync()
  await assert.rejects(manager.receiveSync(answer), /libolm failed/)
  await assert.rejects(manager.sign('anything'), /libolm failed/)
  assert.equal(manager.since, since)
  await bob.crash()
  await bob.sync()
  assert.deepEqual(bob.texts(), ['not lost'])
})

test('a message that names two keys is malformed: every reader must see the same key as the ledger', async () => {
  const { bob, alice } = await pair()
  const { key } = await alice.claim(bob.target)
  const { key: other } = await alice.claim(bob.target)
  const held = await bob.audit()
  const message = alice.encryptWith(bob.target, key, 'hello')
  await alice.send(bob.target, namingFirst(message, other))
  await alice.send(bob.target, withUnknownField(message))
  await bob.sync()
  assert.deepEqual(
    bob.failures.map(({ verdict }) => verdict),
    ['malformed', 'malformed'],
  )
  assert.deepEqual(await bob.audit(), held)
  assert.deepEqual(bob.texts(), [])
})

test('messages handled by one process are distinct from those received by another', async () => {
  const { bob, alice } = await pair()
  const other = await ManagerDevice.on(bob.session, { store: bob.store })
  const say = async (text: string): Promise<void> => {
    const { key } = await alice.claim(bob.target)
    await alice.send(bob.target, alice.encryptWith(bob.target, key, text))
  }
  await say('first')
  await bob.sync()
  await other.sync()
  assert.deepEqual(other.texts(), [], 'the first process is handling it')
  assert.equal((await other.manager.unhandledMessages()).length, 1, 'unless it is requested')
  await other.manager.messagesHandled()
  await say('second')
  await other.sync()
  await bob.manager.messagesHandled()
  assert.deepEqual(other.texts(), ['second'])
  // The second process crashes while handling it.
  const next = await ManagerDevice.on(bob.session, { store: bob.store })
  await next.sync()
  assert.deepEqual(next.texts(), ['second'])
})

test('messages that arrive while others are being handled do not count as handled', async () => {
  const { bob, alice } = await pair()
  for (const text of ['first', 'second']) {
    const { key } = await alice.claim(bob.target)
    await alice.send(bob.target, alice.encryptWith(bob.target, key, text))
    const receiving = bob.receive(await bob.askSync())
    const handling = bob.manager.messagesHandled()
    await receiving
    await handling
  }
  assert.deepEqual(
    (await bob.manager.unhandledMessages()).map(({ plaintext }) => plaintext),
    ['second'],
  )
})

test('a sender who opens more sessions than allowed loses their own, and it is reported', async () => {
  const { bob, alice } = await pair({ limits: { sessions: 6 } })
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'hello'))
  await bob.sync()
  const mallory = await Sender.signIn(server.url, `mallory${pairs}`)
  for (let i = 0; i < 12; i++) {
    mallory.account.create()
    const { key: claimed } = await mallory.claim(bob.target)
    await mallory.send(bob.target, mallory.encryptWith(bob.target, claimed, 'spam'))
  }
  await bob.sync()
  assert.equal(bob.texts().length, 13)
  assert.ok(await bob.manager.encrypt(alice.identityKey, 'still there'))
  const [dropped] = bob.events.filter((event) => event.type === 'sessions_dropped')
  assert.equal(dropped?.sender, mallory.session.userId)
  assert.equal(dropped.count, 7)
})

test('opening with a different pickle key fails with an error that says so', async () => {
  const { bob } = await pair()
  const { userId, deviceId, store } = bob
  const accounts = libolmAccounts(await loadOlm(), 'another key')
  await assert.rejects(KeyManager.open({ store, accounts, userId, deviceId }), {
    name: 'StoreError',
    message: /pickle key/,
  })
  assert.ok(await KeyManager.open({ store: memoryStore(), accounts, userId, deviceId }))
})
