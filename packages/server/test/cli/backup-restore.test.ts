/**
 * Backup and restore of the embedded database as docs/guides/operating.md says, with real processes (issue 11, A1):
 * an online backup, claims, a restart, more claims, `kill -9`, and then a restore by command, or by copying the file.
 */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { type Ended, runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { clientOf, type TestClient, type TestDevice } from '@latchkey/testing/test-server.ts'

const KEYS = 40
const CLAIMS = 5

type Place = { readonly data: string; readonly flags: readonly string[] }

async function upload(client: TestClient, { token }: TestDevice, from: number): Promise<void> {
  const keys = Array.from({ length: KEYS }, (_, n) => {
    const key = Buffer.alloc(32, from + n)
      .toString('base64')
      .replace(/=+$/, '')
    return [`signed_curve25519:K${String(from + n).padStart(3, '0')}`, { key, signatures: {} }]
  })
  const { status, body } = await client.call('POST', '/_matrix/client/v3/keys/upload', {
    token,
    body: { one_time_keys: Object.fromEntries(keys) },
  })
  assert.equal(status, 200, JSON.stringify(body))
}

/** Material of the claimed keys, without those of an empty pool. */
async function claims(client: TestClient, of: TestDevice, by: TestDevice): Promise<string[]> {
  const claimed: string[] = []
  for (let n = 0; n < CLAIMS; n++) {
    const { body } = await client.call('POST', '/_matrix/client/v3/keys/claim', {
      token: by.token,
      body: { one_time_keys: { [of.userId]: { [of.deviceId]: 'signed_curve25519' } } },
    })
    const keys = Object.values(body.one_time_keys[of.userId]?.[of.deviceId] ?? {}) as { key: string }[]
    claimed.push(...keys.map(({ key }) => key))
  }
  return claimed
}

async function withServer<T>(
  { data, flags }: Place,
  end: 'SIGTERM' | 'SIGKILL',
  use: (client: TestClient) => Promise<T>,
): Promise<T> {
  await using server = await startLatchkey([
    '--data',
    data,
    ...flags,
    '--registration',
    'open',
    '--limits',
    'off',
  ])
  const result = await use(clientOf(server.url))
  server.child.kill(end)
  await server.ended
  return result
}

type History = { readonly devices: readonly [TestDevice, TestDevice]; readonly issued: readonly string[] }

/** Two days of a server with a backup on the first, as in the audit. */
async function crashAfterBackup(place: Place, backUp: () => Promise<void>): Promise<History> {
  const first = await withServer(place, 'SIGTERM', async (client) => {
    const devices = [await client.login('alice'), await client.login('bob')] as const
    await upload(client, devices[0], 0)
    await backUp()
    return { devices, issued: await claims(client, ...devices) }
  })
  const second = await withServer(place, 'SIGKILL', (client) => claims(client, ...first.devices))
  const issued = [...first.issued, ...second]
  assert.equal(new Set(issued).size, 2 * CLAIMS)
  assert.ok(existsSync(join(place.data, 'latchkey.db-wal')), 'a killed server leaves its log')
  return { devices: first.devices, issued }
}

/** No key is issued that was issued before; new ones are. */
async function requireKeysOnce(place: Place, { devices, issued }: History): Promise<void> {
  const later = await withServer(place, 'SIGTERM', async (client) => {
    const before = await claims(client, ...devices)
    await upload(client, devices[0], 100)
    return [...before, ...(await claims(client, ...devices))]
  })
  assert.ok(later.length >= CLAIMS)
  const all = [...issued, ...later]
  assert.equal(new Set(all).size, all.length, 'a key was issued twice')
}

const ran = (ended: Ended): string => {
  assert.equal(ended.code, 0, ended.stderr)
  return ended.stdout
}

for (const fenceDir of [false, true]) {
  suite(`a restore after a crash, ${fenceDir ? 'with --fence-dir' : 'by default'}`, () => {
    test('by the guide issues no key twice', async () => {
      using home = temporaryDirectory()
      const place = placeIn(home.path, fenceDir)
      const file = join(home.path, 'monday.db')
      const history = await crashAfterBackup(place, async () => {
        const out = ran(await runLatchkey(['backup', file, '--data', place.data]))
        assert.match(out, /monday.db is complete and sound: 2 users, 2 devices, 40 available one-time keys/)
      })
      const out = ran(await runLatchkey(['restore', file, '--data', place.data, ...place.flags]))
      assert.match(out, /is restored. Everything after .* is lost./)
      assert.match(out, /its number is 1. 40 one-time keys of 1 devices are withdrawn/)
      const aside = readdirSync(place.data).filter((name) => name.startsWith('latchkey.db.replaced-'))
      assert.equal(aside.filter((name) => /Z(-wal|-shm)?$/.test(name)).length, 3, String(aside))
      await requireKeysOnce(place, history)
    })

    test('by copying the backup over the file is refused, and the command that the refusal names helps', async () => {
      using home = temporaryDirectory()
      const place = placeIn(home.path, fenceDir)
      const file = join(home.path, 'monday.db')
      const history = await crashAfterBackup(place, async () => {
        ran(await runLatchkey(['backup', file, '--data', place.data]))
      })
      copyFileSync(file, join(place.data, 'latchkey.db'))
      // The other commands: sqlite/own-log.test.ts.
      for (const command of [
        ['serve', '--port', '0'],
        ['fence', 'status'],
      ]) {
        const { code, stderr } = await runLatchkey([...command, '--data', place.data, ...place.flags])
        assert.equal(code, 1, `${command.join(' ')}: ${stderr}`)
        assert.match(stderr, /do not belong together.*latchkey restore FILE/)
      }
      const imported = await runLatchkey(['import', 'sqlite', place.data, '--undo'])
      assert.match(imported.stderr, /do not belong together/)
      ran(await runLatchkey(['restore', file, '--data', place.data, ...place.flags]))
      await requireKeysOnce(place, history)
    })
  })
}

function placeIn(home: string, fenceDir: boolean): Place {
  return { data: join(home, 'data'), flags: fenceDir ? ['--fence-dir', join(home, 'fence')] : [] }
}

test('backup and restore print JSON, and refuse what they must not replace', async () => {
  using home = temporaryDirectory()
  const place = placeIn(home.path, false)
  const file = join(home.path, 'backup.db')
  const data = ['--data', place.data]
  await withServer(place, 'SIGTERM', async (client) => {
    await client.login('alice')
    const { file: made, users } = JSON.parse(ran(await runLatchkey(['backup', file, '--json', ...data])))
    assert.deepEqual([made, users, statSync(file).mode & 0o777], [file, 1, 0o600])
    const again = await runLatchkey(['backup', file, ...data])
    assert.match(again.stderr, /exists. Choose another file, or replace it with --overwrite/)
    ran(await runLatchkey(['backup', file, '--overwrite', ...data]))
    const running = await runLatchkey(['restore', file, ...data])
    assert.match(running.stderr, /Another Latchkey process is using/)
    const own = await runLatchkey(['backup', join(place.data, 'latchkey.db'), '--overwrite', ...data])
    assert.match(own.stderr, /is a name of the database itself/)
  })
  ran(await runLatchkey(['backup', file, '--overwrite', ...data]))
  assert.deepEqual(
    readdirSync(home.path).filter((name) => name.startsWith('backup.db')),
    ['backup.db'],
  )
  const damaged = join(home.path, 'damaged.db')
  writeFileSync(damaged, 'not a database'.repeat(1000))
  assert.match((await runLatchkey(['restore', damaged, ...data])).stderr, /is damaged/)
  assert.match((await runLatchkey(['restore', join(home.path, 'none'), ...data])).stderr, /does not exist/)
  const restored = JSON.parse(ran(await runLatchkey(['restore', file, '--json', ...data])))
  assert.deepEqual(
    [restored.file, restored.fence, restored.isIncomplete],
    [join(place.data, 'latchkey.db'), 1, false],
  )
  await withServer(place, 'SIGTERM', (client) => client.login('alice'))
})

test('with a PostgreSQL database both commands name the tools of PostgreSQL', async () => {
  for (const command of ['backup', 'restore']) {
    const { code, stderr } = await runLatchkey([command, 'f', '--database', 'postgres://x@localhost/y'])
    assert.equal(code, 1)
    assert.match(stderr, /pg_basebackup .* pg_dump.* "latchkey fence raise"/)
  }
})
