/**
 * The records of a SQLite file: read whole, and written in one transaction.
 *
 * Every record has a checksum, and the head holds the XOR of all of them, so a lost or outdated record is detected too.
 */
import { createHash } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'
import { emptyDigest, mixIn } from '@latchkey/protocol'
import { corrupted } from './sqlite-file-errors.ts'
import { type Changes, type Snapshot, StaleStoreError } from './store.ts'

type Head = { readonly generation: number; readonly digest: Uint8Array }

export function readHead(db: DatabaseSync, path: string): Head {
  const statement = db.prepare('select generation, digest, checksum from head')
  // A damaged number may exceed the range of a JavaScript number.
  statement.setReadBigInts(true)
  const { generation: stored, digest, checksum } = statement.get() ?? {}
  const generation = Number(stored)
  if (
    !Number.isSafeInteger(generation) ||
    !(digest instanceof Uint8Array) ||
    !isSame(checksum, headChecksum(generation, digest))
  ) {
    throw corrupted(path, 'its head is damaged')
  }
  return { generation, digest }
}

export function readAll(db: DatabaseSync, path: string): Snapshot {
  const { generation, digest } = readHead(db, path)
  const records = new Map<string, string>()
  const found = emptyDigest()
  for (const { key, text, checksum } of db.prepare('select key, text, checksum from record').iterate()) {
    const expected = recordChecksum(String(key), String(text))
    if (!isSame(checksum, expected)) throw corrupted(path, `the record ${String(key)} is damaged`)
    mixIn(found, expected)
    records.set(JSON.parse(String(key)) as string, String(text))
  }
  if (!isSame(digest, found)) throw corrupted(path, 'records are missing or out of date')
  return { generation, records }
}

export function writeAll(db: DatabaseSync, path: string, expected: number, changes: Changes): number {
  const { generation, digest } = readHead(db, path)
  if (generation !== expected) throw new StaleStoreError(expected, generation)
  const former = db.prepare('select checksum from record where key = ?')
  const remove = db.prepare('delete from record where key = ?')
  const put = db.prepare('insert or replace into record values (?, ?, ?)')
  for (const [key, text] of changes) {
    if (text?.isWellFormed() === false)
      throw new TypeError(`the text of record "${key}" is not well-formed Unicode`)
    const name = JSON.stringify(key)
    const replaced = former.get(name)?.['checksum']
    if (replaced instanceof Uint8Array) mixIn(digest, replaced)
    if (text === undefined) remove.run(name)
    else {
      const checksum = recordChecksum(name, text)
      mixIn(digest, checksum)
      put.run(name, text, checksum)
    }
  }
  const next = generation + 1
  db.prepare('update head set generation = ?, digest = ?, checksum = ?').run(
    next,
    digest,
    headChecksum(next, digest),
  )
  return next
}

export function inTransaction<T>(db: DatabaseSync, begin: string, work: () => T): T {
  db.exec(begin)
  try {
    const result = work()
    db.exec('commit')
    return result
  } catch (error) {
    if (db.isTransaction) db.exec('rollback')
    throw error
  }
}

/** @param name the key as stored: JSON, so the hashed text is unambiguous */
function recordChecksum(name: string, text: string): Uint8Array {
  return createHash('sha256').update(`${name}${text}`).digest()
}

export function headChecksum(generation: number, digest: Uint8Array): Uint8Array {
  return createHash('sha256').update(`${generation} `).update(digest).digest()
}

function isSame(a: unknown, b: Uint8Array): boolean {
  return a instanceof Uint8Array && Buffer.compare(a, b) === 0
}
