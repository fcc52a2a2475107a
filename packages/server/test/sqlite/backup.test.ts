/** Backups next to a busy writer, and restores that end in the middle (store/sqlite/backup.ts, restore.ts). */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { Store } from '../../src/store.ts'
import {
  backUpDatabase,
  openSqliteStore,
  restoreDatabase,
  type RestoreSummary,
} from '../../src/store/sqlite/index.ts'
import { StoreError } from '../../src/store/store-error.ts'
import { login, poolStatus } from '../store-contract/test-device.ts'
import { claim, claims, countOf, keys, kindsOf, NOW, upload } from '../support/store-calls.ts'

class Home {
  readonly path = mkdtempSync(join(tmpdir(), 'latchkey-backup-'))
  readonly fence = { directory: join(this.path, 'fence') }
  readonly #opened: Store[] = []

  async open(name = 'data'): Promise<{ readonly store: Store; readonly events: readonly FenceEvent[] }> {
    const events: FenceEvent[] = []
    const store = await openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir: join(this.path, name) }),
      fence: this.fence,
      onFence: (event) => events.push(event),
      now: () => NOW,
    })
    this.#opened.push(store)
    return { store, events }
  }

  backUp(onProgress: (copied: number, pages: number) => void = () => {}): Promise<unknown> {
    return backUpDatabase({
      directory: join(this.path, 'data'),
      target: this.backup,
      overwrite: true,
      onProgress,
    })
  }

  restore(onStep: (step: string) => void = () => {}, file = this.backup): Promise<RestoreSummary> {
    return restoreDatabase({ directory: join(this.path, 'data'), file, fence: this.fence, now: NOW, onStep })
  }

  get backup(): string {
    return join(this.path, 'backup.db')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#opened) await store.close()
    rmSync(this.path, { recursive: true, force: true })
  }
}

suite('a backup next to a busy writer', () => {
  test('ends, and has the state of one instant', async () => {
    await using home = new Home()
    const { store } = await home.open()
    const session = await login(store, NOW)
    for (let batch = 0; batch < 45; batch++)
      await upload(store, session, keys(100 * batch, 100 * (batch + 1)))
    const writers = { run: true }
    let issued = 0
    const writer = async (): Promise<void> => {
      while (writers.run) {
        await claim(store)
        issued++
      }
    }
    const writing = Promise.all([writer(), writer(), writer()])
    let steps = 0
    let issuedAtFirstStep: number | undefined
    try {
      await home.backUp(() => {
        steps++
        issuedAtFirstStep ??= issued
      })
    } finally {
      writers.run = false
    }
    await writing
    assert.ok(steps > 0)
    assert.ok(issued > (issuedAtFirstStep ?? issued), 'keys were issued during the copy')
    const db = new DatabaseSync(home.backup, { readOnly: true })
    const row = db
      .prepare(
        `select (select sum(count) from pools) as counted, (select count(*) from issue_log) as logged,
           (select count(*) from one_time_keys where state = 0) as available`,
      )
      .get()
    db.close()
    assert.equal(row?.['counted'], row?.['available'])
    assert.deepEqual(
      readdirSync(home.path).filter((name) => name.startsWith('backup.db')),
      ['backup.db'],
    )
  })

  test('that is damaged or cannot be written leaves the previous one', async () => {
    await using home = new Home()
    const { store } = await home.open()
    const session = await login(store, NOW)
    for (let batch = 0; batch < 20; batch++)
      await upload(store, session, keys(100 * batch, 100 * (batch + 1)))
    await home.backUp()
    await assert.rejects(
      home.backUp(() => {
        throw new Error('the disk is full')
      }),
    )
    assert.deepEqual(
      readdirSync(home.path).filter((name) => name.startsWith('backup.db')),
      ['backup.db'],
    )
    await store.close()
    await home.restore()
  })
})

const STEPS = ['copy', 'check', 'raise the fence', 'move the present files aside', 'put in place']

suite('a restore that ends at any step', () => {
  for (const last of STEPS) {
    test(`${last}: a server starts with the former database or is refused, and the same command completes it`, async () => {
      await using home = new Home()
      const first = await home.open()
      const session = await login(first.store, NOW)
      await upload(first.store, session, keys(0, 30))
      await home.backUp()
      const issued = await claims(first.store, 5)
      await first.store.close()
      await assert.rejects(
        home.restore((step) => {
          if (step === last) throw new Error('killed')
        }),
        /killed/,
      )
      if (existsSync(join(home.path, 'data', 'latchkey.db.restoring'))) {
        await assert.rejects(home.open(), /A restore of .* did not end/)
      } else {
        const present = await home.open()
        assert.deepEqual(kindsOf(present.events), ['stands'])
        issued.push(...(await claims(present.store, 1)))
        await present.store.close()
      }
      const { fence, withdrawnKeys } = await home.restore()
      assert.deepEqual([fence, withdrawnKeys], [1, 30])
      const { store, events } = await home.open()
      assert.deepEqual(kindsOf(events), ['stands'], 'the fence was raised by the command')
      assert.equal(await claim(store), undefined)
      await upload(store, session, keys(30, 40))
      issued.push(...(await claims(store, 10)))
      assert.equal(new Set(issued).size, issued.length)
      await store.close()
      const left = readdirSync(join(home.path, 'data')).filter((name) => /incoming|restoring/.test(name))
      assert.deepEqual(left, [])
    })
  }
})

suite('a restore', () => {
  test('of a file with its log uses both, and of a file with another log is refused', async () => {
    await using home = new Home()
    const { store } = await home.open()
    const session = await login(store, NOW)
    await upload(store, session, keys(0, 30))
    await claims(store, 5)
    const copy = join(home.path, 'copy.db')
    for (const part of ['', '-wal'])
      copyFileSync(join(home.path, 'data', `latchkey.db${part}`), `${copy}${part}`)
    await store.close()
    assert.equal((await home.restore(undefined, copy)).withdrawnKeys, 25)
    const next = await home.open()
    copyFileSync(join(home.path, 'data', 'latchkey.db-wal'), `${copy}-wal`)
    await next.store.close()
    await assert.rejects(
      home.restore(undefined, copy),
      (error) => error instanceof StoreError && /do not belong together/.test(error.message),
    )
  })

  test('of the only file that is left, without its log, says that it is incomplete', async () => {
    await using home = new Home()
    const { store } = await home.open()
    const session = await login(store, NOW)
    await upload(store, session, keys(0, 30))
    const file = join(home.path, 'data', 'latchkey.db')
    const alone = join(home.path, 'alone.db')
    copyFileSync(file, alone)
    await store.close()
    assert.equal((await home.restore(undefined, alone)).isIncomplete, true)
    const restored = await home.open()
    await restored.store.close()
    assert.equal((await home.restore(undefined, file)).isIncomplete, false)
    const again = await home.open()
    const status = await poolStatus(again.store, session).catch(() => undefined)
    assert.ok(status === undefined || countOf(status) === 0 || countOf(status) === undefined)
  })
})
