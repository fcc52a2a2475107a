/** The contract against IndexedDB as fake-indexeddb implements it, and failures of that store alone. */
import 'fake-indexeddb/auto'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { within } from '@latchkey/testing/within.ts'
import { indexedDbStore } from '../../src/store/indexed-db.ts'
import type { Store, StoreError } from '../../src/store/store.ts'
import { changes, contentOf } from './cases.ts'
import { testStore } from './run-cases.ts'

testStore({
  name: 'IndexedDB',
  make() {
    const name = crypto.randomUUID()
    return { open: () => indexedDbStore(name), discard: () => deleteDatabase(name) }
  },
})

test('a database of another program is foreign, and stays unchanged', async () => {
  const name = crypto.randomUUID()
  const other = await openDatabase(name, 1, (db) => db.createObjectStore('notes'))
  other.close()
  await rejectsEverything(indexedDbStore(name), 'foreign', /another program/)
  const again = await openDatabase(name, 1)
  assert.deepEqual([...again.objectStoreNames], ['notes'])
  again.close()
})

test('a database of a newer version is foreign', async () => {
  const name = crypto.randomUUID()
  const newer = await openDatabase(name, 2, (db) => db.createObjectStore('head'))
  newer.close()
  await rejectsEverything(indexedDbStore(name), 'foreign', /newer version/)
})

test('a record that is not text, a missing record, and a missing head are damage', async () => {
  const damages: ((db: IDBDatabase) => IDBTransaction)[] = [
    (db) => change(db, 'records', (records) => records.put({ text: '1' }, 'a')),
    (db) => change(db, 'records', (records) => records.delete('a')),
    (db) => change(db, 'records', (records) => records.put('3', 3)),
    (db) => change(db, 'head', (head) => head.delete('head')),
    (db) => change(db, 'head', (head) => head.put({ generation: '1' }, 'head')),
  ]
  for (const damage of damages) {
    const name = crypto.randomUUID()
    const store = indexedDbStore(name)
    await store.write(0, changes({ a: '1', b: '2' }))
    const db = await openDatabase(name, 1)
    const transaction = damage(db)
    await new Promise((resolve) => transaction.addEventListener('complete', resolve))
    db.close()
    await assert.rejects(store.read(), isStoreError('corrupted', /damaged/))
    await store.close()
  }
})

test('a store lets another tab delete the database, and does not create a new one', async () => {
  const name = crypto.randomUUID()
  const store = indexedDbStore(name)
  await store.write(0, changes({ a: '1' }))
  await within('the deletion of the database', deleteDatabase(name))
  await rejectsEverything(store, 'unreadable', /deleted while in use/)
  assert.deepEqual(
    (await indexedDB.databases()).filter((database) => database.name === name),
    [],
  )
  // A reloaded page starts from nothing.
  assert.equal(await indexedDbStore(name).generation(), 0)
})

test('a store whose connection was closed opens another', async () => {
  const name = crypto.randomUUID()
  const store = indexedDbStore(name)
  await store.write(0, changes({ a: '1' }))
  // Requesting an upgrade closes all connections; this upgrade is then cancelled.
  const request = indexedDB.open(name, 2)
  request.addEventListener('upgradeneeded', () => request.transaction?.abort())
  await new Promise((resolve) => request.addEventListener('error', resolve))
  assert.deepEqual(contentOf(await store.read()), { a: '1' })
})

test('a closed store refuses to be used', async () => {
  const store = indexedDbStore(crypto.randomUUID())
  await store.write(0, changes({ a: '1' }))
  await store.close()
  await rejectsEverything(store, 'unreadable', /closed/)
})

test('waiting too long for the lock is an error that says so, and the holder keeps the lock', async () => {
  const name = crypto.randomUUID()
  const { promise: held, resolve: release } = Promise.withResolvers<string>()
  const holding = indexedDbStore(name).exclusively(() => held)
  const waiter = indexedDbStore(name, { lockTimeoutMs: 20 })
  await assert.rejects(
    waiter.exclusively(() => Promise.resolve()),
    isStoreError('unreadable', /another tab/),
  )
  release('done')
  assert.equal(await holding, 'done')
})

async function rejectsEverything(store: Store, reason: StoreError['reason'], message: RegExp): Promise<void> {
  await assert.rejects(store.read(), isStoreError(reason, message))
  await assert.rejects(store.generation(), isStoreError(reason, message))
  await assert.rejects(store.write(0, changes({ a: 'x' })), isStoreError(reason, message))
}

function isStoreError(reason: StoreError['reason'], message: RegExp) {
  return (error: StoreError): boolean => {
    assert.equal(error.name, 'StoreError', String(error))
    assert.equal(error.reason, reason)
    assert.match(error.message, message)
    return true
  }
}

function change(db: IDBDatabase, name: string, how: (store: IDBObjectStore) => unknown): IDBTransaction {
  const transaction = db.transaction(name, 'readwrite')
  how(transaction.objectStore(name))
  return transaction
}

function openDatabase(
  name: string,
  version: number,
  upgrade: (db: IDBDatabase) => unknown = () => undefined,
): Promise<IDBDatabase> {
  const request = indexedDB.open(name, version)
  request.addEventListener('upgradeneeded', () => upgrade(request.result))
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error as DOMException))
  })
}

function deleteDatabase(name: string): Promise<void> {
  const request = indexedDB.deleteDatabase(name)
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve())
    request.addEventListener('error', () => reject(request.error as DOMException))
  })
}
