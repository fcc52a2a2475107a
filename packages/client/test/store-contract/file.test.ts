/** The contract against a file, and its failures: foreign content, a missing directory, a full disk, a closed store. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { fileStore } from '../../src/store/sqlite-file.ts'
import type { StoreError } from '../../src/store/store.ts'
import { changes } from './cases.ts'
import { testStore } from './run-cases.ts'

const root = mkdtempSync(join(tmpdir(), 'latchkey-store-'))
after(() => rmSync(root, { recursive: true, force: true }))

testStore({
  name: 'file',
  make() {
    const path = newPath()
    return { open: () => fileStore(path), discard: () => undefined }
  },
})

test('only the owner can read the files of a store, regardless of the umask', async () => {
  const path = newPath()
  const umask = process.umask(0)
  try {
    const store = fileStore(path)
    await store.write(0, changes({ a: '1' }))
    await store.exclusively(async () => {
      const files = readdirSync(join(path, '..'))
      assert.deepEqual(files.sort(), ['store', 'store-shm', 'store-wal', 'store.lock'])
      for (const file of files) assert.equal(statSync(join(path, '..', file)).mode & 0o777, 0o600, file)
    })
    await store.close()
  } finally {
    process.umask(umask)
  }
})

test('foreign content at the path is an error of every operation, and stays unchanged', async () => {
  const contents: readonly [string, Buffer | string, StoreError['reason'], RegExp][] = [
    ['nothing', '', 'corrupted', /it is empty/],
    ['text', 'not a database, despite its name\n'.repeat(200), 'corrupted', /not a database/],
    ['another database', databaseWith('create table notes (text)'), 'foreign', /another program/],
    [
      'a newer format',
      databaseWith('pragma application_id = 0x4c746368; pragma user_version = 2; create table x (y)'),
      'foreign',
      /format 2/,
    ],
    [
      'our mark and nothing else',
      databaseWith('pragma application_id = 0x4c746368; pragma user_version = 1'),
      'corrupted',
      /no such table/,
    ],
  ]
  for (const [what, content, reason, message] of contents) {
    const path = newPath()
    writeFileSync(path, content)
    const store = fileStore(path)
    for (const operation of [
      () => store.read(),
      () => store.generation(),
      () => store.write(0, changes({ a: '1' })),
    ]) {
      await assert.rejects(operation, isStoreError(reason, message), what)
    }
    await store.close()
    assert.deepEqual(readFileSync(path), Buffer.from(content), what)
  }
})

test('the error for a missing directory names it', async () => {
  const path = join(root, 'nowhere', 'store')
  await assert.rejects(
    fileStore(path).read(),
    isStoreError('unreadable', /directory .*nowhere does not exist/),
  )
  await assert.rejects(
    fileStore(path).exclusively(() => Promise.resolve()),
    isStoreError('unreadable', /store\.lock cannot be used/),
  )
  await assert.rejects(fileStore(root).read(), isStoreError('unreadable', /unable to open/))
})

test('a file that is removed or replaced while open is an error, not a fresh start', async () => {
  const path = newPath()
  const store = fileStore(path)
  await store.write(0, changes({ a: '1' }))
  const aside = `${path}.aside`
  renameSync(path, aside)
  await assert.rejects(store.generation(), isStoreError('unreadable', /removed while in use/))
  await assert.rejects(store.read(), isStoreError('unreadable', /removed while in use/))
  writeFileSync(path, readFileSync(aside))
  await assert.rejects(store.write(1, changes({})), isStoreError('unreadable', /replaced while in use/))
  await store.close()
})

test('a log without its file is an error, not a fresh start', async () => {
  const path = newPath()
  const store = fileStore(path)
  await store.write(0, changes({ a: '1' }))
  const log = readFileSync(`${path}-wal`)
  await store.close()
  rmSync(path)
  writeFileSync(`${path}-wal`, log)
  await assert.rejects(fileStore(path).read(), isStoreError('corrupted', /its log .* exists/))
})

test('a closed store refuses to be used', async () => {
  const store = fileStore(newPath())
  await store.write(0, changes({ a: '1' }))
  await store.close()
  await assert.rejects(store.read(), isStoreError('unreadable', /closed/))
  await assert.rejects(store.write(1, changes({})), isStoreError('unreadable', /closed/))
})

test('waiting too long for the lock is an error that says so, and the holder keeps the lock', async () => {
  const path = newPath()
  const { promise: held, resolve: release } = Promise.withResolvers<string>()
  const holder = fileStore(path)
  const { promise: started, resolve: start } = Promise.withResolvers<void>()
  const holding = holder.exclusively(() => {
    start()
    return held
  })
  await started
  const waiter = fileStore(path, { lockTimeoutMs: 20 })
  await assert.rejects(
    waiter.exclusively(() => Promise.resolve()),
    isStoreError('unreadable', /store\.lock is locked: another process or store object/),
  )
  release('done')
  assert.equal(await holding, 'done')
  assert.equal(await waiter.exclusively(() => Promise.resolve('mine')), 'mine')
})

test('on a full disk a write fails as a whole', async () => {
  const path = newPath()
  const script = fileURLToPath(new URL('../support/store/fill-store.ts', import.meta.url))
  // The system refuses files beyond 400 blocks of 512 bytes: the best simulation of a full disk without privileges.
  const { stdout } = await promisify(execFile)('sh', [
    '-c',
    'ulimit -f 400; exec "$@"',
    'sh',
    process.execPath,
    script,
    path,
  ])
  const { written, reason, message, content } = JSON.parse(stdout) as Record<string, unknown>
  assert.equal(reason, 'unreadable')
  assert.match(String(message), /free space/)
  assert.equal(content, written)
  const store = fileStore(path)
  const snapshot = await store.read()
  assert.equal(snapshot.generation, written)
  assert.equal(snapshot.records.size, written)
  await store.close()
})

test('an old copy of the file next to a newer log is never read as a mixture of the two', async () => {
  const path = newPath()
  const store = fileStore(path)
  await store.write(0, changes(numbered(100, 'old')))
  await store.close()
  const old = readFileSync(path)
  const again = fileStore(path)
  await again.write(1, changes(numbered(50, 'new')))
  checkpoint(path)
  await again.write(2, changes({ record7: 'newest' }))
  const log = readFileSync(`${path}-wal`)
  await again.close()

  const mixed = newPath()
  writeFileSync(mixed, old)
  writeFileSync(`${mixed}-wal`, log)
  await assert.rejects(fileStore(mixed).read(), isStoreError('corrupted', /damaged/))
})

function newPath(): string {
  return join(mkdtempSync(join(root, 'place-')), 'store')
}

function numbered(count: number, text: string): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`record${i}`, text.repeat(100)]))
}

/** Moves the log into the file, as SQLite does from time to time. */
function checkpoint(path: string): void {
  const db = new DatabaseSync(path)
  db.exec('pragma wal_checkpoint(truncate)')
  db.close()
}

/** The bytes of a database that was created by `sql`. */
function databaseWith(sql: string): Buffer {
  const path = newPath()
  const db = new DatabaseSync(path)
  db.exec(sql)
  db.close()
  return readFileSync(path)
}

function isStoreError(reason: StoreError['reason'], message: RegExp) {
  return (error: StoreError): boolean => {
    assert.equal(error.name, 'StoreError', String(error))
    assert.match(error.message, message)
    assert.equal(error.reason, reason)
    return true
  }
}
