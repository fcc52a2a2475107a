/** The reads of a sync that a change of a device list has woken: none grows with the users it tracks (issue 11, C2). */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync, StatementSync } from 'node:sqlite'
import { test } from 'node:test'
import type { UserId } from '@latchkey/protocol'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import type { SyncReading } from '../../src/sync/port.ts'
import { login } from '../store-contract/test-device.ts'
import { RewindableDirectory } from '../support/rewindable-directory.ts'

const NAMES = Array.from({ length: 30 }, (_, n) => `@user${n}:test.example` as UserId)

/** A store in which all users track each other, and their sessions. */
async function mesh(directory: RewindableDirectory): Promise<{ store: Store; sessions: Session[] }> {
  const { store } = await directory.open()
  const sessions: Session[] = []
  for (const name of NAMES) sessions.push(await login(store, 1, name))
  for (const session of sessions) await store.devices.track(session, NAMES)
  return { store, sessions }
}

function read(store: Store, session: Session, after?: SyncReading): Promise<SyncReading> {
  const token = after && { epoch: after.epoch, position: after.position }
  return store.sync.read(session, {
    ...(token && { token }),
    confirms: false,
    everyoneFromBeginning: false,
    page: { toDevicePerSync: 100, syncPageBytes: 1e9 },
    mayWait: true,
  })
}

/** The SQL of the statements that run meanwhile. */
async function statementsOf(run: () => Promise<unknown>): Promise<string[]> {
  const statements: string[] = []
  const methods = ['run', 'get', 'all'] as const
  const originals = methods.map((name) => [name, StatementSync.prototype[name]] as const)
  for (const [name, original] of originals) {
    Object.assign(StatementSync.prototype, {
      [name](this: StatementSync, ...parameters: never[]) {
        statements.push(this.sourceSQL)
        return Reflect.apply(original, this, parameters)
      },
    })
  }
  try {
    await run()
  } finally {
    for (const [name, original] of originals) Object.assign(StatementSync.prototype, { [name]: original })
  }
  return statements
}

test('a woken sync walks neither all users nor all whom its user tracks', async () => {
  await using directory = new RewindableDirectory()
  const { store, sessions } = await mesh(directory)
  const [renamed, ...others] = sessions
  assert.ok(renamed)
  const before = await Promise.all(others.map((session) => read(store, session)))
  await Promise.all(others.map((session, n) => read(store, session, before[n])))
  await store.devices.rename(renamed, renamed.deviceId, 'new name')
  const changed: UserId[] = []
  const statements = await statementsOf(async () => {
    for (const [n, session] of others.entries())
      changed.push(...(await read(store, session, before[n])).changedUsers)
  })
  assert.deepEqual(
    changed,
    others.map(() => renamed.userId),
  )
  using database = new DatabaseSync(join(directory.path, 'latchkey.db'), { readOnly: true })
  for (const sql of new Set(statements)) {
    for (const { detail } of database.prepare(`explain query plan ${sql}`).all()) {
      assert.doesNotMatch(String(detail), /^SCAN (users|tracked_users)/, sql)
      // By its observer alone: all whom the user tracks.
      assert.doesNotMatch(String(detail), /tracked_users .*\(observer_num=\?\)/, sql)
    }
  }
})

test('a commit names the observers of a list once, and no one else', async () => {
  await using directory = new RewindableDirectory()
  const { store, sessions } = await mesh(directory)
  const [renamed] = sessions
  assert.ok(renamed)
  const stranger = await login(store, 1, '@stranger:test.example' as UserId)
  const woken: number[][] = []
  store.sync.subscribe({ device() {}, everyone() {}, users: (refs) => woken.push([...refs]) })
  await store.devices.rename(renamed, renamed.deviceId, 'new name')
  const expected = sessions.map(({ userRef }) => userRef as number)
  assert.deepEqual(
    woken.map((refs) => refs.toSorted((a, b) => a - b)),
    [expected],
  )
  await store.devices.rename(stranger, stranger.deviceId, 'new name')
  assert.deepEqual(woken.slice(1), [[stranger.userRef]])
})

test('lists are found by either way: few that changed, or many, or a change for one observer', async () => {
  await using directory = new RewindableDirectory()
  const { store, sessions } = await mesh(directory)
  const [first, second] = sessions
  assert.ok(first && second)
  const start = await read(store, first)
  const end = (): Promise<number> => read(store, first).then(({ position }) => position)
  const changed = async (since: number): Promise<string[]> =>
    [...(await store.devices.changedSince(first.userRef, since, await end()))].toSorted()
  assert.deepEqual(await changed(start.position), [])
  await store.devices.rename(second, second.deviceId, 'new')
  assert.deepEqual(await changed(start.position), [second.userId])
  assert.deepEqual(await changed(-1), [...NAMES].toSorted())
  const strangers = Array.from({ length: 300 }, (_, n) => `@stranger${n}:test.example` as UserId)
  for (const name of strangers) {
    const stranger = await login(store, 1, name)
    await store.devices.rename(stranger, stranger.deviceId, 'new')
  }
  assert.deepEqual(await changed(start.position), [second.userId])
})
