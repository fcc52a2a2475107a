/**
 * A witness that was restored or copied with its database (issue 11, A3): a start is refused, names both remedies, and
 * raises nothing. The PostgreSQL half needs LATCHKEY_TEST_POSTGRES.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { Store } from '../../src/store.ts'
import {
  adoptPostgresFence,
  postgresFenceStatus,
  raisePostgresFence,
} from '../../src/store/postgres/index.ts'
import { adoptFence, fenceStatus, openSqliteStore, raiseFence } from '../../src/store/sqlite/index.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { Witness } from '../../src/store/witness.ts'
import { login } from '../store-contract/test-device.ts'
import { RewindableDatabase, skip } from '../support/rewindable-database.ts'
import { claim, claims, keys, kindsOf, NOW, upload } from '../support/store-calls.ts'

const COMMAND = { reason: 'a test', now: NOW }

class Directory {
  readonly #root = mkdtempSync(join(tmpdir(), 'latchkey-copied-'))
  path = join(this.#root, 'data')
  readonly archive = join(this.#root, 'data.tar')
  readonly #opened: Store[] = []

  async open(): Promise<{ readonly store: Store; readonly events: readonly FenceEvent[] }> {
    const events: FenceEvent[] = []
    const store = await openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir: this.path }),
      fence: this.fence,
      onFence: (event) => events.push(event),
      now: () => NOW,
    })
    this.#opened.push(store)
    return { store, events }
  }

  get fence(): { readonly directory: string } {
    return { directory: this.path }
  }

  pack(): void {
    execFileSync('tar', ['-cf', this.archive, '-C', this.#root, 'data'])
  }

  unpack(): void {
    rmSync(this.path, { recursive: true })
    execFileSync('tar', ['-xf', this.archive, '-C', this.#root])
  }

  moveTo(name: string, move: (from: string, to: string) => void): void {
    const to = join(this.#root, name)
    move(this.path, to)
    this.path = to
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#opened) await store.close()
    rmSync(this.#root, { recursive: true, force: true })
  }
}

const namesBothRemedies = (error: unknown): boolean =>
  error instanceof StoreError &&
  /was copied or restored.*"latchkey fence raise".*"latchkey fence adopt"/.test(error.message)

/** A stopped installation with 30 keys, packed; then 5 keys are issued, and the archive is restored. */
async function restored(directory: Directory): Promise<readonly (string | undefined)[]> {
  const first = await directory.open()
  await upload(first.store, await login(first.store, NOW), keys(0, 30))
  await first.store.close()
  directory.pack()
  const second = await directory.open()
  assert.deepEqual(kindsOf(second.events), ['stands'])
  const issued = await claims(second.store, 5)
  await second.store.close()
  directory.unpack()
  return issued
}

suite('an archive of the whole data directory that is restored', () => {
  test('is refused until the fence is raised, and no key is issued again', async () => {
    await using directory = new Directory()
    const issued = await restored(directory)
    await assert.rejects(directory.open(), namesBothRemedies)
    await assert.rejects(directory.open(), namesBothRemedies)
    const { witnesses } = await fenceStatus(directory.path, directory.fence)
    assert.deepEqual(
      witnesses.map(({ isCopy, judgement }) => [isCopy, judgement.kind]),
      [[true, 'holds']],
    )
    assert.equal((await raiseFence(directory.path, COMMAND, directory.fence)).number, 1)
    const { store, events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['stands'])
    assert.equal(await claim(store), undefined)
    assert.equal(new Set(issued).size, 5)
    await store.close()
    assert.deepEqual(kindsOf((await directory.open()).events), ['stands'])
  })

  test('is refused although its files have the inodes of the former ones', async () => {
    await using directory = new Directory()
    await restored(directory)
    // A file system uses a free inode again; the birth time tells the two files apart.
    for (const file of witnessesIn(directory.path)) claimInode(file)
    await assert.rejects(directory.open(), namesBothRemedies)
  })
})

function witnessesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => /^fence-.*\d$/.test(name))
    .map((name) => join(directory, name))
}

/** Rewrites the inode that a witness was written with to the one that it has. */
function claimInode(file: string): void {
  const places = readFileSync(file)
  const { ino } = statSync(file, { bigint: true })
  for (const at of [0, 64 * 1024]) {
    const [, text] = places.toString('utf8', at, at + 64 * 1024).split('\n')
    const content = JSON.parse(text ?? '') as { identity: { inode: string } }
    content.identity.inode = String(ino)
    const changed = JSON.stringify(content)
    places.fill(0, at, at + 64 * 1024)
    places.write(`${hash('sha256', changed)}\n${changed}\n`, at)
  }
  writeFileSync(file, places)
}

suite('an installation that is moved while it is stopped', () => {
  test('within a file system starts', async () => {
    await using directory = new Directory()
    const { store } = await directory.open()
    await upload(store, await login(store, NOW), keys(0, 5))
    await store.close()
    directory.moveTo('elsewhere', renameSync)
    const moved = await directory.open()
    assert.deepEqual(kindsOf(moved.events), ['stands'])
    assert.equal(await claim(moved.store), 'K0000')
  })

  test('by copying is refused until it is adopted, and then issues its keys', async () => {
    await using directory = new Directory()
    const { store } = await directory.open()
    await upload(store, await login(store, NOW), keys(0, 5))
    await store.close()
    directory.moveTo('elsewhere', (from, to) => {
      execFileSync('cp', ['-a', from, to])
    })
    await assert.rejects(directory.open(), namesBothRemedies)
    await adoptFence(directory.path, directory.fence)
    const moved = await directory.open()
    assert.deepEqual(kindsOf(moved.events), ['stands'])
    assert.equal(await claim(moved.store), 'K0000')
  })
})

test('one copied witness among several is enough to refuse', async () => {
  await using directory = new Directory()
  const { store } = await directory.open()
  await store.close()
  const [file = ''] = witnessesIn(directory.path)
  cpSync(file, file.replace(/1$/, '2'))
  await assert.rejects(directory.open(), namesBothRemedies)
})

test('a witness without an identity, as earlier versions write, gets one at the first start', async () => {
  await using directory = new Directory()
  await (await directory.open()).store.close()
  const [file = ''] = witnessesIn(directory.path)
  const places = readFileSync(file)
  for (const at of [0, 64 * 1024]) {
    const [, text] = places.toString('utf8', at, at + 64 * 1024).split('\n')
    const { identity: _, ...content } = JSON.parse(text ?? '') as { identity: unknown }
    const earlier = JSON.stringify(content)
    places.fill(0, at, at + 64 * 1024)
    places.write(`${hash('sha256', earlier)}\n${earlier}\n`, at)
  }
  writeFileSync(file, places)
  const { store, events } = await directory.open()
  assert.deepEqual(kindsOf(events), ['stands'])
  await store.close()
  directory.pack()
  directory.unpack()
  await assert.rejects(directory.open(), namesBothRemedies)
})

test('a file that a crash left before its first write is a new witness', async () => {
  await using directory = new Directory()
  const { store } = await directory.open()
  await store.close()
  const [file = ''] = witnessesIn(directory.path)
  for (const content of [Buffer.alloc(0), Buffer.alloc(128 * 1024)]) {
    writeFileSync(file, content)
    const witness = Witness.take(file)
    assert.equal(witness?.isNew, true)
    witness?.close()
  }
  const { events } = await directory.open()
  assert.deepEqual(kindsOf(events), ['stands'])
})

test('on PostgreSQL a copied witness is refused until the fence is raised or the witness adopted', {
  skip,
}, async () => {
  await using database = await RewindableDatabase.create()
  const directory = database.newDirectory()
  const first = await database.open(directory)
  await upload(first.store, await login(first.store, NOW), keys(0, 10))
  await first.store.close()
  const fence = { directory: database.newDirectory() }
  cpSync(directory, fence.directory, { recursive: true, filter: (file) => !file.endsWith('.lock') })
  assert.ok(existsSync(directory))
  const options = { url: database.url, connections: 2 }
  await assert.rejects(database.open(fence.directory), namesBothRemedies)
  const { witnesses } = await postgresFenceStatus(options, fence)
  assert.deepEqual(
    witnesses.map(({ isCopy }) => isCopy),
    [true],
  )
  await adoptPostgresFence(options, fence)
  const adopted = await database.open(fence.directory)
  assert.deepEqual(kindsOf(adopted.events), ['stands'])
  assert.equal(await claim(adopted.store), 'K0000')
  await adopted.store.close()
  const third = { directory: database.newDirectory() }
  cpSync(directory, third.directory, { recursive: true, filter: (file) => !file.endsWith('.lock') })
  await raisePostgresFence(options, COMMAND, third)
  const raised = await database.open(third.directory)
  assert.deepEqual(kindsOf(raised.events), ['stands'])
  assert.equal(await claim(raised.store), undefined)
})
