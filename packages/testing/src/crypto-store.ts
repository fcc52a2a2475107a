/**
 * Backs up, restores and empties a client's IndexedDB databases (fake-indexeddb).
 * The databases must be closed meanwhile.
 */
import 'fake-indexeddb/auto'
import { indexedDB } from 'fake-indexeddb'
import type { AnyJson } from './matrix-session.ts'

/** Database name -> object store name -> rows. */
export type StoreCopy = ReadonlyMap<string, ReadonlyMap<string, readonly Row[]>>

type Row = { readonly key: AnyJson; readonly value: AnyJson }

/** Copies every database whose name begins with `name`. */
export async function copyStore(name: string): Promise<StoreCopy> {
  const copy = new Map<string, Map<string, Row[]>>()
  for (const database of await indexedDB.databases()) {
    if (database.name?.startsWith(`${name}::`) !== true) continue
    const stores = new Map<string, Row[]>()
    const db: AnyJson = await settled(indexedDB.open(database.name))
    for (const store of db.objectStoreNames) {
      const objects = db.transaction(store).objectStore(store)
      const [keys, values] = await Promise.all([settled(objects.getAllKeys()), settled(objects.getAll())])
      stores.set(
        store,
        keys.map((key: AnyJson, i: number) => ({ key, value: structuredClone(values[i]) })),
      )
    }
    db.close()
    copy.set(database.name, stores)
  }
  if (copy.size === 0) throw new Error(`no database begins with ${name}`)
  return copy
}

/** Replaces the contents of the databases by those of the copy. */
export async function restoreStore(copy: StoreCopy): Promise<void> {
  for (const [name, stores] of copy) {
    const db: AnyJson = await settled(indexedDB.open(name))
    for (const [store, rows] of stores) {
      const transaction = db.transaction(store, 'readwrite')
      const objects = transaction.objectStore(store)
      objects.clear()
      for (const { key, value } of rows) {
        if (objects.keyPath === null) objects.put(structuredClone(value), key)
        else objects.put(structuredClone(value))
      }
      await new Promise((resolve, reject) => {
        transaction.addEventListener('complete', resolve)
        transaction.addEventListener('error', reject)
      })
    }
    db.close()
  }
}

/** Empties the databases, as clearing a browser profile does. Deleting them would wait for open connections. */
export async function emptyStore(name: string): Promise<void> {
  const copy = await copyStore(name)
  const empty = [...copy].map(
    ([database, stores]) => [database, new Map([...stores.keys()].map((store) => [store, []]))] as const,
  )
  await restoreStore(new Map(empty))
}

function settled(request: AnyJson): Promise<AnyJson> {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result))
    request.addEventListener('error', () => reject(request.error))
  })
}
