/**
 * One account that asks for as much as it can, next to a user with small requests (issue 11, C1). Counts only:
 * refusals, items per turn of the event loop, and the answers of the other user.
 */
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CLAIM, CLIENT, CURVE, ids, keys, ok, UPLOAD } from '@latchkey/testing/test-client.ts'
import type { AnyJson, TestDevice, TestServer } from '@latchkey/testing/test-server.ts'
import { around, start } from './support.ts'

type Request = { readonly method: string; readonly path: string; readonly body: object }

const CONNECTIONS = 8
/** The largest piece of a walk (keys-query.ts, keys-claim.ts, tracked-users.ts). */
const MAX_ITEMS_PER_TURN = 200

const users = (count: number, value: unknown): object =>
  Object.fromEntries(ids(count).map((id) => [`@${id}:test.example`, value]))
const query: Request = {
  method: 'POST',
  path: `${CLIENT}/keys/query`,
  body: { device_keys: users(10_000, []) },
}
const claim: Request = {
  method: 'POST',
  path: CLAIM,
  body: { one_time_keys: users(10_000, { DEVICE: CURVE }) },
}
const signatures: Request = {
  method: 'POST',
  path: `${CLIENT}/keys/signatures/upload`,
  body: users(1_000, { DEVICE: { user_id: 'x', signatures: {} } }),
}
const deletion: Request = {
  method: 'POST',
  path: `${CLIENT}/delete_devices`,
  body: {
    devices: ids(1_000),
    auth: {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: 'alice' },
      password: 'password',
    },
  },
}
const send = (n: number): Request => ({
  method: 'PUT',
  path: `${CLIENT}/sendToDevice/m.room.encrypted/${n}`,
  body: { messages: users(10_000, { DEVICE: { algorithm: 'm.olm', ciphertext: 'x'.repeat(400) } }) },
})
const fraction: Request = {
  method: 'POST',
  path: UPLOAD,
  body: { one_time_keys: {}, numbers: [...Array<number>(19_000).fill(1), 1.5] },
}
const rename: Request = { method: 'PUT', path: `${CLIENT}/devices/ATTACKER`, body: { display_name: 'again' } }

function call(server: TestServer, { token }: TestDevice, { method, path, body }: Request): Promise<AnyJson> {
  return server.call(method, path, { token, body })
}

/** Counts the items that the store walks in one turn of the event loop; returns the most of any turn. */
function watchWalks({ context }: TestServer): { most: () => number; end: () => void } {
  let turn = 0
  let watching = true
  const perTurn = new Map<number, number>()
  const next = (): void => {
    turn++
    if (watching) setImmediate(next)
  }
  setImmediate(next)
  const watch = (target: object, name: string, count: (argument: AnyJson) => number): void =>
    around(target, name, (run, argument) => {
      perTurn.set(turn, (perTurn.get(turn) ?? 0) + count(argument))
      return run()
    })
  watch(context.store.devices, 'published', (userIds) => userIds.length)
  watch(context.pools, 'claim', ({ targets }) => targets.length)
  return {
    most: () => Math.max(...perTurn.values()),
    end: () => {
      watching = false
    },
  }
}

test('a budget at rest admits one request of full size of each endpoint, and ten full fan-outs', async () => {
  await using server = await start()
  const alice = await server.login('alice')
  for (const request of [query, claim, signatures, deletion]) ok(await call(server, alice, request))
  ok(await call(server, alice, { method: 'POST', path: UPLOAD, body: { one_time_keys: keys(ids(500)) } }))
  for (let n = 0; n < 10; n++) ok(await call(server, alice, send(n)))
})

test('a budget at rest admits five removals of 1 000 devices, because the embedded store does each at once', async () => {
  await using server = await start()
  const alice = await server.login('alice')
  for (let n = 0; n < 5; n++) ok(await call(server, alice, deletion))
  assert.equal((await call(server, alice, deletion)).status, 429)
})

describe('next to 8 connections of one account, a user is served', () => {
  const rows: readonly (readonly [string, Request])[] = [
    ['queries of 10 000 users', query],
    ['claims from 10 000 devices', claim],
    ['signatures of 1 000 users', signatures],
    ['bodies with one fraction', fraction],
    ['renames', rename],
  ]
  for (const [name, request] of rows) {
    test(name, async () => {
      await using server = await start()
      const [victim, attacker] = [await server.login('victim'), await server.login('attacker', 'ATTACKER')]
      const walks = watchWalks(server)
      const statuses: number[] = []
      let refused = false
      const attack = async (): Promise<void> => {
        for (let n = 0; n < 100 && !refused; n++) {
          const { status, body } = await call(server, attacker, request)
          statuses.push(status)
          if (status === 429) {
            refused = true
            assert.ok(body.retry_after_ms > 0)
          }
        }
      }
      const attackers = Promise.all(Array.from({ length: CONNECTIONS }, attack))
      for (let n = 0; n < 20; n++)
        ok(await server.call('GET', `${CLIENT}/account/whoami`, { token: victim.token }))
      ok(await server.call('POST', CLAIM, { token: victim.token, body: { one_time_keys: {} } }))
      await attackers
      walks.end()
      assert.ok(statuses.includes(200), `${statuses}`)
      assert.equal(statuses.at(-1) === 429 || statuses.includes(429), true, 'the budget has an end')
      assert.ok(walks.most() <= MAX_ITEMS_PER_TURN, `${walks.most()} items in one turn`)
      // The budget of the victim is untouched.
      ok(await call(server, victim, { ...query, body: { device_keys: users(100, []) } }))
    })
  }
})

test('a small request of another user overtakes a large one', async () => {
  await using server = await start()
  const [victim, attacker] = [await server.login('victim'), await server.login('attacker')]
  const order: string[] = []
  let walked = 0
  const begun = Promise.withResolvers<void>()
  around(server.context.store.devices, 'published', (published) => {
    if (++walked === 2) begun.resolve()
    return published()
  })
  const large = call(server, attacker, query).then(() => order.push('large'))
  await begun.promise
  ok(await server.call('GET', `${CLIENT}/account/whoami`, { token: victim.token }))
  order.push('small')
  await large
  assert.deepEqual(order, ['small', 'large'])
})

test('of one user one large request is worked on at a time', async () => {
  await using server = await start()
  const attacker = await server.login('attacker')
  let running = 0
  let most = 0
  around(server.context.store.devices, 'track', async (track) => {
    most = Math.max(most, ++running)
    await track()
    running--
  })
  const answers = await Promise.all(Array.from({ length: CONNECTIONS }, () => call(server, attacker, query)))
  assert.equal(most, 1)
  const statuses = answers.map(({ status }: AnyJson) => status).toSorted()
  assert.deepEqual([statuses[0], statuses.at(-1)], [200, 429], `${statuses}`)
})
