/**
 * To-device messages over HTTP: once per transaction, repeated until acknowledged, in pages (client-server API,
 * "Send-to-device messaging").
 */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { CLIENT, longPoll, ok, refused, send, sync } from '@latchkey/testing/test-client.ts'
import { sharedServer } from '../support/shared-server.ts'
import type { AnyJson, TestDevice } from '@latchkey/testing/test-server.ts'

const { server, bob, newDevice, loginAgain } = await sharedServer()

/** The token of an answer after which nothing is new. */
async function caughtUp(device: TestDevice): Promise<string> {
  return (await sync(server, device)).next_batch
}

describe('to-device messages', () => {
  const events = async (device: TestDevice, since?: string): Promise<AnyJson> =>
    sync(server, device, since === undefined ? {} : { since, timeout: '60000' })

  test('are repeated until the device sends the token of their answer (SyTest 46direct/02)', async () => {
    const alice = await newDevice()
    const since = await caughtUp(alice)
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: { n: 1 } } }, 'ack-1')
    const expected = [{ sender: bob.userId, type: 'm.test', content: { n: 1 } }]
    const first = await events(alice, since)
    assert.deepEqual(first.to_device.events, expected)
    assert.deepEqual((await events(alice, since)).to_device.events, expected)
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: { n: 2 } } }, 'ack-2')
    const next = await events(alice, first.next_batch)
    assert.deepEqual(
      next.to_device.events.map((event: AnyJson) => event.content.n),
      [2],
    )
    assert.deepEqual((await sync(server, alice, { since: next.next_batch })).to_device.events, [])
  })

  test('a repeated transaction delivers once; another type, device or transaction delivers again', async () => {
    const alice = await newDevice()
    const messages = { [alice.userId]: { [alice.deviceId]: { n: 1 } } }
    for (let i = 0; i < 3; i++) ok(await send(server, bob, messages, 'replayed'))
    await Promise.all(Array.from({ length: 5 }, () => send(server, bob, messages, 'at once')))
    ok(await send(server, alice, messages, 'replayed'))
    assert.equal((await events(alice)).to_device.events.length, 3)
  })

  test('a transaction ID belongs to its event type: with another type it is another transaction', async () => {
    const alice = await newDevice()
    const body = { messages: { [alice.userId]: { [alice.deviceId]: {} } } }
    const paths = ['m.one/1', 'm.two/1', 'm.one/2', 'm.one%2F1/1', 'm.one/1%2F1', 'm.one/1', 'm.two/1']
    for (const path of paths)
      ok(await server.call('PUT', `${CLIENT}/sendToDevice/${path}`, { token: bob.token, body }))
    const types = (await events(alice)).to_device.events.map(({ type }: AnyJson) => type)
    assert.deepEqual(types, ['m.one', 'm.two', 'm.one', 'm.one/1', 'm.one'])
  })

  test('a device named along with the wildcard gets only its own message', async () => {
    const alice = await newDevice()
    const second = await loginAgain(alice, 'SECOND')
    const third = await loginAgain(alice, 'THIRD')
    const [named, everyone] = [{ for: 'you' }, { for: 'all' }]
    for (const [id, byDevice] of [
      { [alice.deviceId]: named, '*': everyone },
      { '*': everyone, [alice.deviceId]: named },
    ].entries()) {
      ok(await send(server, bob, { [alice.userId]: byDevice }, `wildcard-${id}`))
    }
    const contents = async (device: TestDevice): Promise<unknown> =>
      (await events(device)).to_device.events.map(({ content }: AnyJson) => content)
    assert.deepEqual(await contents(alice), [named, named])
    for (const device of [second, third]) assert.deepEqual(await contents(device), [everyone, everyone])
  })

  test('are limited to 100 per sync, in order, and the next sync returns the rest at once', async () => {
    const alice = await newDevice()
    const since = await caughtUp(alice)
    for (let n = 0; n < 250; n++) {
      await send(server, bob, { [alice.userId]: { [alice.deviceId]: { n } } }, `many-${n}`)
    }
    const received: number[] = []
    const sizes: number[] = []
    let token = since
    while (received.length < 250) {
      const answer = await events(alice, token)
      sizes.push(answer.to_device.events.length)
      received.push(...answer.to_device.events.map((event: AnyJson) => event.content.n))
      token = answer.next_batch
    }
    assert.deepEqual(sizes, [100, 100, 50])
    assert.deepEqual(
      received,
      Array.from({ length: 250 }, (_, n) => n),
    )
  })

  test('the wildcard reaches every device of several users (Complement TestToDeviceMessages)', async () => {
    const alice = await newDevice()
    const second = await loginAgain(alice, 'SECOND')
    const carol = await newDevice()
    const poll = await longPoll(server, second, await caughtUp(second))
    const content = { hello: 'world' }
    const messages = {
      [alice.userId]: { '*': content },
      [carol.userId]: { [carol.deviceId]: content, UNKNOWN: content },
      '@unknown:test.example': { '*': content },
      '@far:elsewhere.example': { '*': content },
      nonsense: { '*': content },
    }
    ok(await send(server, bob, messages, 'wildcard'))
    const expected = [{ sender: bob.userId, type: 'm.test', content }]
    assert.deepEqual(ok(await poll.answer).to_device.events, expected)
    for (const device of [alice, carol]) assert.deepEqual((await events(device)).to_device.events, expected)
  })

  test('are removed with the device', async () => {
    const alice = await newDevice()
    await send(server, bob, { [alice.userId]: { [alice.deviceId]: { secret: 1 } } }, 'gone')
    ok(await server.call('POST', `${CLIENT}/logout`, { token: alice.token }))
    const again = await loginAgain(alice, alice.deviceId)
    assert.deepEqual((await sync(server, again)).to_device.events, [])
  })

  test('a content over the limit is a 413, and no message of the request is delivered', async () => {
    const alice = await newDevice()
    const messages = {
      [alice.userId]: { [alice.deviceId]: { text: 'small' }, '*': { text: 'x'.repeat(70_000) } },
    }
    refused(await send(server, bob, messages, 'large'), 413, 'M_TOO_LARGE')
    assert.deepEqual((await events(alice)).to_device.events, [])
  })
})
