/**
 * Two processes on one embedded database, because its lock file was deleted (store/sqlite/owner.ts): the newcomer owns
 * it, the other one stops, no key is issued twice, and nothing that was acknowledged is lost.
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { startLatchkey } from '@latchkey/testing/run-latchkey.ts'
import { clientOf, type TestClient, type TestDevice } from '@latchkey/testing/test-server.ts'
import { DEFAULT_CONFIG, fenceOptions, storeOptions } from '../../src/config/config.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import type { Store } from '../../src/store.ts'
import { checkDatabase } from '../../src/store/sqlite/check-database.ts'
import { openSqliteStore, raiseFence } from '../../src/store/sqlite/index.ts'
import { login, poolStatus } from '../store-contract/test-device.ts'
import { claim, claims, countOf, FALLBACK, keys, NOW, sync, upload } from '../support/store-calls.ts'

type Process = { readonly store: Store; readonly losses: () => number }

class Directory {
  readonly path = mkdtempSync(join(tmpdir(), 'latchkey-owner-'))
  readonly #opened: Store[] = []

  async open({ fence = true } = {}): Promise<Process> {
    const config = { ...DEFAULT_CONFIG, dataDir: this.path, fence }
    let losses = 0
    const store = await openSqliteStore({
      ...storeOptions(config),
      ...fenceOptions(config),
      onFence: () => {},
      onLost: () => losses++,
      now: () => NOW,
    })
    this.#opened.push(store)
    return { store, losses: () => losses }
  }

  /** The mistake of an operator who believes that a lock is left over. */
  deleteLocks(): void {
    for (const name of readdirSync(this.path)) if (name.includes('lock')) rmSync(join(this.path, name))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#opened) await store.close()
    rmSync(this.path, { recursive: true, force: true })
  }
}

const isUnavailable = (error: unknown): boolean => error instanceof MatrixError && error.status === 503

type Answer = { readonly key: string | undefined } | undefined

/** A claim; undefined when it was refused with 503. Anything else fails the test. */
async function tryClaim(store: Store): Promise<Answer> {
  try {
    return { key: await claim(store) }
  } catch (error) {
    if (isUnavailable(error)) return undefined
    throw error
  }
}

const many = (store: Store, count: number): Promise<Answer>[] =>
  Array.from({ length: count }, () => tryClaim(store))

/** The keys of the claims that were answered. */
async function answered(claiming: readonly Promise<Answer>[]): Promise<(string | undefined)[]> {
  return (await Promise.all(claiming)).flatMap((answer) => (answer === undefined ? [] : [answer.key]))
}

for (const fence of [true, false]) {
  suite(`two stores on one database, the fence ${fence ? 'on' : 'off'}`, () => {
    test('the newcomer issues the keys that are left, and the other one is refused and reports it once', async () => {
      await using directory = new Directory()
      const first = await directory.open({ fence })
      const session = await login(first.store, NOW)
      await upload(first.store, session, keys(0, 20))
      const issued = await claims(first.store, 3)
      await assert.rejects(directory.open({ fence }), /Another Latchkey process is using/)
      directory.deleteLocks()
      const second = await directory.open({ fence })
      for (let n = 0; n < 4; n++) {
        issued.push(...(await answered([tryClaim(first.store), tryClaim(second.store)])))
      }
      assert.deepEqual(
        issued,
        keys(0, 7).map(({ keyId }) => keyId),
      )
      assert.deepEqual([first.losses(), second.losses()], [1, 0])
      await assert.rejects(upload(first.store, session, keys(20, 21)), isUnavailable)
    })

    test('reads of the other one are refused too, before it has written anything', async () => {
      await using directory = new Directory()
      const first = await directory.open({ fence })
      const session = await login(first.store, NOW)
      await upload(first.store, session, keys(0, 20))
      await sync(first.store, session)
      directory.deleteLocks()
      const second = await directory.open({ fence })
      await claims(second.store, 5)
      await assert.rejects(sync(first.store, session), isUnavailable)
      await assert.rejects(first.store.accounts.session(session.tokenHash), isUnavailable)
      await assert.rejects(first.store.ready(), isUnavailable)
      assert.equal(first.losses(), 1)
      assert.equal(countOf(await poolStatus(second.store, session)), 15)
    })

    test('three in a row in the middle of a busy commit queue hand each key out once', async () => {
      await using directory = new Directory()
      let process = await directory.open({ fence })
      const session = await login(process.store, NOW)
      await upload(process.store, session, keys(0, 90), [FALLBACK])
      await upload(process.store, session, keys(90, 180))
      const claiming: Promise<Answer>[] = []
      const losers: Process[] = []
      for (let round = 0; round < 3; round++) {
        const [first, ...others] = many(process.store, 20)
        if (first !== undefined) claiming.push(first, ...others)
        await first
        claiming.push(...many(process.store, 20))
        directory.deleteLocks()
        const newcomer = await directory.open({ fence })
        claiming.push(...many(process.store, 20))
        losers.push(process)
        process = newcomer
      }
      claiming.push(...many(process.store, 20))
      const issued = await answered(claiming)
      assert.ok(issued.length >= 80, `only ${issued.length} claims were answered`)
      assert.equal(new Set(issued).size, issued.length)
      assert.deepEqual(
        losers.map(({ losses }) => losses()),
        [1, 1, 1],
      )
      // Nothing that was acknowledged is lost: the last owner has them all, in order.
      const left = countOf(await poolStatus(process.store, session)) ?? 0
      assert.ok(left <= 180 - issued.length)
      const rest = await claims(process.store, left)
      assert.equal(new Set([...issued, ...rest]).size, issued.length + left)
    })
  })
}

test('closing a connection that lost the database writes nothing, whether it is the last one or not', async () => {
  await using directory = new Directory()
  const first = await directory.open()
  const session = await login(first.store, NOW)
  await upload(first.store, session, keys(0, 30))
  const issued = await claims(first.store, 5)
  directory.deleteLocks()
  const second = await directory.open()
  issued.push(...(await claims(second.store, 5)))
  await first.store.close()
  issued.push(...(await claims(second.store, 5)))
  directory.deleteLocks()
  const third = await directory.open()
  issued.push(...(await claims(third.store, 5)))
  await third.store.close()
  // The last connection writes the log into the file.
  await second.store.close()
  const last = await directory.open()
  issued.push(...(await claims(last.store, 10)))
  assert.deepEqual(
    issued,
    keys(0, 30).map(({ keyId }) => keyId),
  )
  assert.deepEqual(checkDatabase(directory.path).findings, [])
})

/** Replaces files by copies of the same content, as `sed -i` or a restore by another program does. */
function replace(directory: string, names: readonly string[]): void {
  for (const name of names) {
    copyFileSync(join(directory, name), join(directory, 'copy'))
    renameSync(join(directory, 'copy'), join(directory, name))
  }
}

/** Accidents of an operator with the files of a running server, together with its locks. */
const LOST_FILES: Readonly<Record<string, (directory: string) => void>> = {
  'the index of the log is deleted': (directory) => rmSync(join(directory, 'latchkey.db-shm')),
  'file and log are replaced': (directory) => {
    replace(directory, ['latchkey.db', 'latchkey.db-wal'])
    rmSync(join(directory, 'latchkey.db-shm'))
  },
  'the index is replaced': (directory) => replace(directory, ['latchkey.db-shm']),
}

for (const [accident, happen] of Object.entries(LOST_FILES)) {
  test(`${accident} while a server runs: it stops, and a newcomer issues the rest`, async () => {
    await using directory = new Directory()
    const first = await directory.open({ fence: false })
    const session = await login(first.store, NOW)
    await upload(first.store, session, keys(0, 30))
    const issued = await claims(first.store, 5)
    happen(directory.path)
    directory.deleteLocks()
    const second = await directory.open({ fence: false })
    for (let n = 0; n < 5; n++) {
      issued.push(...(await answered([tryClaim(first.store), tryClaim(second.store)])))
    }
    assert.equal(first.losses(), 1)
    // Its end leaves the files of the newcomer alone.
    await first.store.close()
    issued.push(...(await claims(second.store, 5)))
    directory.deleteLocks()
    const third = await directory.open({ fence: false })
    issued.push(...(await claims(third.store, 15)))
    assert.deepEqual(
      issued,
      keys(0, 30).map(({ keyId }) => keyId),
    )
  })
}

test('a command that writes the database while its lock is deleted stops the server', async () => {
  await using directory = new Directory()
  const { store, losses } = await directory.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 5))
  directory.deleteLocks()
  await raiseFence(directory.path, { reason: 'a test', now: NOW })
  await assert.rejects(claim(store), isUnavailable)
  assert.equal(losses(), 1)
})

suite('two servers on one data directory', () => {
  test('the first one ends with an error, the keys of both are distinct, and waiting syncs are answered', async () => {
    await using directory = new Directory()
    const flags = ['--data', directory.path, '--registration', 'open', '--limits', 'off']
    await using first = await startLatchkey(flags)
    const one = clientOf(first.url)
    const alice = await one.login('alice')
    const bob = await one.login('bob')
    await uploadKeys(one, alice, 40)
    const { body } = await one.call('GET', '/_matrix/client/v3/sync', { token: alice.token })
    const waiting = one.call('GET', `/_matrix/client/v3/sync?timeout=60000&since=${body.next_batch}`, {
      token: alice.token,
    })
    directory.deleteLocks()
    await using second = await startLatchkey(flags)
    const two = clientOf(second.url)
    const claimed: string[] = []
    for (let n = 0; n < 10; n++) {
      for (const answer of await Promise.allSettled([claimKey(one, bob, alice), claimKey(two, bob, alice)])) {
        if (answer.status === 'fulfilled' && answer.value !== undefined) claimed.push(answer.value)
      }
    }
    const { code, stderr } = await first.ended
    assert.equal(code, 1)
    assert.equal((await waiting).status, 503)
    const errors = stderr.split('\n').filter((line) => line.includes('Another Latchkey process has opened'))
    assert.equal(errors.length, 1, stderr)
    assert.equal(claimed.length, 10)
    assert.equal(new Set(claimed).size, 10)
  })
})

async function uploadKeys(client: TestClient, device: TestDevice, count: number): Promise<void> {
  const material = (n: number): string =>
    Buffer.alloc(32, n + 1)
      .toString('base64')
      .replace(/=+$/, '')
  const one_time_keys = Object.fromEntries(
    Array.from({ length: count }, (_, n) => [`curve25519:K${n}`, material(n)]),
  )
  const { status, body } = await client.call('POST', '/_matrix/client/v3/keys/upload', {
    token: device.token,
    body: { one_time_keys },
  })
  assert.equal(status, 200, JSON.stringify(body))
}

/** The key that a claim received; undefined when it was refused with 503. */
async function claimKey(
  client: TestClient,
  claimer: TestDevice,
  { userId, deviceId }: TestDevice,
): Promise<string | undefined> {
  const { status, body } = await client.call('POST', '/_matrix/client/v3/keys/claim', {
    token: claimer.token,
    body: { one_time_keys: { [userId]: { [deviceId]: 'curve25519' } } },
  })
  if (status === 503) return undefined
  assert.equal(status, 200, JSON.stringify(body))
  return Object.keys(body.one_time_keys[userId][deviceId]).join()
}
