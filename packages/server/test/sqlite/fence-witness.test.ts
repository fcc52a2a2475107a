/** The witness file of the embedded store's fence: damaged, on a full disk, and always written before the answers. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import type { Store } from '../../src/store.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { login, poolStatus } from '../store-contract/test-device.ts'
import { type Copy, RewindableDirectory } from '../support/rewindable-directory.ts'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { claim, claims, keys, kindsOf, NOW, upload } from '../support/store-calls.ts'

test('a witness with one damaged place is read from the other', async () => {
  for (const place of [0, 1]) {
    await using directory = new RewindableDirectory()
    const before = await directory.open()
    const session = await login(before.store, NOW)
    await upload(before.store, session, keys(0, 10))
    const backup = directory.copy()
    await claims(before.store, 5)
    await before.store.close()
    for (const file of directory.witnesses) {
      const bytes = readFileSync(file)
      assert.ok(bytes.length > 64 * 1024, 'both places are written')
      bytes.fill(0, place * 64 * 1024 + 30, place * 64 * 1024 + 60)
      writeFileSync(file, bytes)
    }
    const damaged = await directory.open()
    assert.deepEqual(kindsOf(damaged.events), ['stands'])
    await damaged.store.close()
    for (const file of directory.witnesses) {
      const bytes = readFileSync(file)
      bytes.fill(0, place * 64 * 1024 + 30, place * 64 * 1024 + 60)
      writeFileSync(file, bytes)
    }
    directory.putBack(backup, { witness: false })
    const { store, events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['raised'])
    assert.equal(await claim(store), undefined)
  }
})

suite('a witness that cannot be written', () => {
  test('is a 503 for the requests of its commit, and nothing is committed until it can be written', async () => {
    await using directory = new RewindableDirectory()
    const { store } = await directory.open()
    const session = await login(store, NOW)
    await upload(store, session, keys(0, 20))
    const [file = ''] = directory.witnesses
    const repair = breakOpenFile(file)
    const first = await Promise.allSettled([claim(store), claim(store), claim(store)])
    assert.deepEqual(first.map(statusOf), [503, 503, 503])
    const left = await poolStatus(store, session)
    const later = await Promise.allSettled([claim(store), claim(store), upload(store, session, keys(20, 25))])
    assert.deepEqual(later.map(statusOf), [503, 503, 503])
    assert.deepEqual(await poolStatus(store, session), left)
    repair()
    // The three keys of the commit that could not be acknowledged are not issued again.
    assert.deepEqual(
      await claims(store, 17),
      keys(3, 20).map(({ keyId }) => keyId as string),
    )
    await store.close()
    const { events } = await directory.open()
    assert.deepEqual(kindsOf(events), ['stands'])
  })

  const mountable = process.platform === 'linux' && process.getuid?.() === 0
  test('because the disk is full is detected at the start, not by a claim', {
    skip: !mountable && 'needs to mount a small disk',
  }, async () => {
    using disk = temporaryDirectory()
    using data = temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', disk.path])
    try {
      const fill = (): void => {
        const fd = openSync(join(disk.path, 'ballast'), 'a')
        closeSync(fd)
        assert.throws(() => writeFileSync(join(disk.path, 'ballast'), Buffer.alloc(1024 * 1024)), /ENOSPC/)
      }
      const open = (): Promise<Store> =>
        openSqliteStore({
          ...storeOptions({ ...DEFAULT_CONFIG, dataDir: data.path }),
          fence: { directory: disk.path },
          onFence() {},
          now: Date.now,
        })
      fill()
      await assert.rejects(
        open,
        (error) => error instanceof StoreError && error.message.includes('--fence-dir'),
      )
      rmSync(join(disk.path, 'ballast'))
      const store = await open()
      fill()
      const session = await login(store, NOW)
      await upload(store, session, keys(0, 10))
      assert.equal(new Set(await claims(store, 10)).size, 10)
      await store.close()
    } finally {
      execFileSync('umount', [disk.path])
    }
  })
})

function statusOf(outcome: PromiseSettledResult<unknown>): unknown {
  return outcome.status === 'rejected' && outcome.reason instanceof MatrixError
    ? outcome.reason.status
    : outcome.status
}

/** Replaces an open file of this process by a disk that is always full; returns the function that restores it. */
function breakOpenFile(path: string): () => void {
  const fd = readdirSync('/proc/self/fd')
    .map(Number)
    .find((candidate) => targetOf(candidate) === path)
  if (fd === undefined) throw new Error(`${path} is not open`)
  const replace = (by: string): void => {
    closeSync(fd)
    // `open` returns the lowest free number first.
    const held: number[] = []
    for (;;) {
      const opened = openSync(by, 'r+')
      if (opened === fd) break
      held.push(opened)
    }
    for (const other of held) closeSync(other)
  }
  replace('/dev/full')
  return () => replace(path)
}

function targetOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined // The descriptor that listed the directory.
  }
}

test('no answer leaves before its witness is written', async () => {
  await using directory = new RewindableDirectory()
  const { store } = await directory.open()
  const session = await login(store, NOW)
  await upload(store, session, keys(0, 20))
  const moments: { readonly before: Copy; readonly after: Copy }[] = []
  for (let n = 0; n < 8; n++) {
    const before = directory.copy()
    await claim(store)
    moments.push({ before, after: directory.copy() })
  }
  await store.close()
  for (const { before, after } of moments) {
    directory.putBack(after, { witness: true })
    directory.putBack(before, { witness: false })
    const put = await directory.open()
    assert.deepEqual(kindsOf(put.events), ['raised'])
    await put.store.close()
  }
})
