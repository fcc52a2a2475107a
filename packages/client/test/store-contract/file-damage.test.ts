/**
 * A file store with corrupted bytes: it reads as before, or fails. DAMAGE_STEP sets the distance between corrupted
 * bytes; 1 tests every byte.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, test } from 'node:test'
import { fileStore } from '../../src/store/sqlite-file.ts'
import { type Snapshot, StoreError } from '../../src/store/store.ts'

const STEP = Number(process.env['DAMAGE_STEP'] ?? 97)
/** The first bytes of a file and of its log are tested one by one: they determine how the rest is read. */
const HEADER_BYTES = 120

const root = mkdtempSync(join(tmpdir(), 'latchkey-damage-'))
after(() => rmSync(root, { recursive: true, force: true }))

test('a changed byte anywhere in the file is an error, or makes no difference', async (t) => {
  const { file, history } = await makeStore({ killed: false })
  const last = history.at(-1)
  let noticed = 0
  for (const position of positions(file.length)) {
    for (const bits of [0x01, 0xff]) {
      const found = await readCopy({ file: flipped(file, position, bits) })
      if (found instanceof StoreError) noticed++
      else assert.deepEqual(found, last, `byte ${position} of the file`)
    }
  }
  assert.ok(noticed > 0)
  t.diagnostic(`${noticed} of ${2 * positions(file.length).length} changes noticed, the others harmless`)
})

test('structural damage of the file is found at opening, even where the records can be read', async () => {
  const { file } = await makeStore({ killed: false })
  // The number of free pages, which reading records does not need.
  const found = await readCopy({ file: flipped(file, 39, 0x08) })
  assert.ok(found instanceof StoreError)
  assert.match(found.message, /damaged: .*free/i)
})

test('a generation beyond the range of numbers is damage', async () => {
  const path = newPath()
  const store = fileStore(path)
  await store.write(0, new Map([['key/1', '{}']]))
  await store.close()
  const db = new DatabaseSync(path)
  db.exec('update head set generation = 9223372036854775807')
  db.close()
  for (const operation of ['read', 'generation'] as const) {
    const again = fileStore(path)
    await assert.rejects(again[operation](), { name: 'StoreError', reason: 'corrupted' })
    await again.close()
  }
})

test('a truncated file is an error, or makes no difference', async () => {
  const { file, history } = await makeStore({ killed: false })
  for (let length = 0; length < file.length; length += 512) {
    const found = await readCopy({ file: file.subarray(0, length) })
    if (!(found instanceof StoreError)) assert.deepEqual(found, history.at(-1), `cut off at ${length}`)
  }
})

test('a changed byte in the log of a killed process gives a former state, never a mixture or a new store', async () => {
  const { file, log, history } = await makeStore({ killed: true })
  const asItWas = await readCopy({ file, log })
  assert.deepEqual(asItWas, history.at(-1))
  const logs = positions(log.length, 7 * STEP).map((position) => flipped(log, position, 0xff))
  for (const [i, damaged] of [...logs, Buffer.alloc(0)].entries()) {
    const found = await readCopy({ file, log: damaged })
    if (found instanceof StoreError) continue
    assert.ok(found.generation >= 1, `log ${i}`)
    assert.deepEqual(found, history[found.generation - 1], `log ${i}`)
  }
})

type Files = { readonly file: Buffer; readonly log?: Buffer }

/** The files of a store after several writes, and the snapshot after each of them. */
async function makeStore({
  killed,
}: {
  killed: boolean
}): Promise<Required<Files> & { history: Snapshot[] }> {
  const path = newPath()
  const store = fileStore(path)
  const history: Snapshot[] = []
  for (let i = 0; i < 8; i++) {
    const changes = new Map<string, string | undefined>([[`former${i - 1}`, undefined]])
    for (let record = 0; record < 12; record++)
      changes.set(`key/${i % 4}-${record}`, `text ${i} `.repeat(record))
    changes.set(`former${i}`, 'x'.repeat(i === 5 ? 9_000 : 20))
    await store.write(i, changes)
    history.push(await store.read())
  }
  const log = readFileSync(`${path}-wal`)
  if (!killed) await store.close()
  const file = readFileSync(path)
  await store.close()
  return { file, log, history }
}

async function readCopy({ file, log }: Files): Promise<Snapshot | StoreError> {
  const path = newPath()
  writeFileSync(path, file)
  if (log !== undefined) writeFileSync(`${path}-wal`, log)
  const store = fileStore(path)
  try {
    return await store.read()
  } catch (error) {
    if (error instanceof StoreError) return error
    throw error
  } finally {
    await store.close()
    rmSync(join(path, '..'), { recursive: true })
  }
}

function positions(length: number, step = STEP): number[] {
  const all = Array.from({ length }, (_, position) => position)
  return all.filter((position) => position < HEADER_BYTES || position % step === 0)
}

function flipped(bytes: Buffer, position: number, bits: number): Buffer {
  const copy = Buffer.from(bytes)
  copy.writeUInt8((bytes[position] ?? 0) ^ bits, position)
  return copy
}

function newPath(): string {
  return join(mkdtempSync(join(root, 'place-')), 'store')
}
