/** The ready-made loop: long-polls, delivers messages, refills, survives failures, and stops on request. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { within } from '@latchkey/testing/within.ts'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import type { DecryptedMessage, LoopOptions } from '../../src/index.ts'
import { ManagerDevice } from '../support/manager/device.ts'
import { Sender } from '../support/manager/sender.ts'

let server: TestServer
before(async () => {
  server = await startTestServer()
})
after(async () => {
  await server[Symbol.asyncDispose]()
})

let pairs = 0
async function pair() {
  const number = ++pairs
  const bob = await ManagerDevice.signIn(server.url, { user: `bob${number}`, deviceId: 'BOB' })
  return { bob, alice: await Sender.signIn(server.url, `alice${number}`) }
}

function loopOf(bob: ManagerDevice, more: Partial<LoopOptions> = {}): LoopOptions {
  return { baseUrl: server.url, accessToken: bob.session.token, onMessages: () => {}, ...more }
}

/** Resolves when such a request was answered. */
function answered(path: string): { fetch: typeof fetch; done: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return {
    done: promise,
    async fetch(input, init) {
      const response = await fetch(input, init)
      if (String(input).includes(path)) resolve()
      return response
    },
  }
}

test('the loop publishes, waits, delivers messages, refills, and stops in the middle of a long-poll', async () => {
  const { bob, alice } = await pair()
  const upload = answered('/keys/upload')
  const { promise, resolve } = Promise.withResolvers<readonly DecryptedMessage[]>()
  const running = bob.manager.start(loopOf(bob, { fetch: upload.fetch, onMessages: resolve }))
  await within('the first upload', upload.done)
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'hello'))
  const [message] = await within('the message', promise)
  assert.equal(message?.plaintext, 'hello')
  await assert.rejects(bob.manager.start(loopOf(bob)), /already running/)
  await within('the end', bob.manager.stop())
  await running
  assert.deepEqual(await bob.manager.unhandledMessages(), [])
  await bob.assertSubset()
})

test('the loop continues after network errors and 503, which only delay it', async () => {
  const { bob } = await pair()
  const upload = answered('/keys/upload')
  let faults = 0
  const running = bob.manager.start(
    loopOf(bob, {
      syncTimeoutMs: 50,
      async fetch(input, init) {
        faults++
        if (faults === 1) throw new TypeError('network down')
        if (faults === 4) return new Response('{}', { status: 503, headers: { 'retry-after': '0' } })
        return upload.fetch(input, init)
      },
    }),
  )
  await within('the upload', upload.done)
  await bob.manager.stop()
  await running
  await bob.assertSubset()
})

test('messages that the app failed to handle are delivered again', async () => {
  const { bob, alice } = await pair()
  await bob.catchUp()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'hello'))
  const failing = (): void => {
    throw new Error('the app is broken')
  }
  await assert.rejects(bob.manager.start(loopOf(bob, { onMessages: failing })), /the app is broken/)
  const { promise, resolve } = Promise.withResolvers<readonly DecryptedMessage[]>()
  await bob.crash()
  const running = bob.manager.start(loopOf(bob, { onMessages: resolve }))
  assert.equal((await within('the message', promise))[0]?.plaintext, 'hello')
  await bob.manager.stop()
  await running
})

test('the loop ends with an error when the token is refused', async () => {
  const { bob } = await pair()
  await assert.rejects(bob.manager.start(loopOf(bob, { accessToken: 'wrong' })), /token was refused/)
})

test('stop() may be called while messages are handled', async () => {
  const { bob, alice } = await pair()
  await bob.catchUp()
  const { key } = await alice.claim(bob.target)
  await alice.send(bob.target, alice.encryptWith(bob.target, key, 'stop'))
  await within('the end', bob.manager.start(loopOf(bob, { onMessages: () => bob.manager.stop() })))
  assert.deepEqual(await bob.manager.unhandledMessages(), [])
})

for (const [what, respond, expected] of [
  ['asks to wait for a month', () => json({}, { status: 429, headers: { 'retry-after': '2592000' } }), 1],
  ['asks for an infinite wait', () => new Response('{"retry_after_ms":1e400}', { status: 429 }), 1],
  ['answers without a position', () => json({ to_device: {} }), 1],
  ['does not wait, and says nothing new', () => json({ next_batch: 'same' }), 4],
] as const) {
  test(`a server that ${what} is asked again after a pause that a timer can represent`, async (context) => {
    const { bob } = await pair()
    let requests = 0
    const paused = Promise.withResolvers<number>()
    const { setTimeout } = globalThis
    context.mock.method(globalThis, 'setTimeout', (work: () => void, ms: number) => {
      paused.resolve(ms)
      return setTimeout(work, ms)
    })
    const options = loopOf(bob, {
      async fetch(input) {
        requests++
        return String(input).includes('/sync') ? respond() : json({})
      },
    })
    const running = bob.manager.start(options)
    const pauseMs = await paused.promise
    context.mock.restoreAll()
    assert.ok(pauseMs >= 500 && pauseMs <= 300_000, `${pauseMs} ms`)
    assert.equal(requests, expected)
    await bob.manager.stop()
    await running
  })
}

function json(body: unknown, init?: ResponseInit): Response {
  return new Response(JSON.stringify(body), init)
}
