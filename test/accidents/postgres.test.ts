/**
 * Accidents and harmless events over PostgreSQL: two servers with directories of their own, or with a shared one. After
 * an accident no key is issued twice; a harmless event raises nothing and refuses nothing. Needs
 * LATCHKEY_TEST_POSTGRES. ACCIDENTS_SAMPLE=n runs every n-th combination.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { noPgbouncer, startPgbouncer } from '@latchkey/testing/pgbouncer.ts'
import { MatrixError } from '../../packages/server/src/matrix-error.ts'
import type { Store } from '../../packages/server/src/store.ts'
import { login } from '../../packages/server/test/store-contract/test-device.ts'
import {
  type Opened,
  RewindableDatabase,
  skip,
} from '../../packages/server/test/support/rewindable-database.ts'
import { claim, keys, NOW, upload } from '../../packages/server/test/support/store-calls.ts'
import { History } from './history.ts'
import { CLOCKS, SAMPLE } from './table.ts'

const DIRECTORIES = ['directories of their own', 'a shared directory'] as const
/** The servers whose writes are lost, or that claim before a harmless event. */
const LOSERS = ['the first', 'the second', 'both'] as const
const ACCIDENTS = [
  'a backup replaces the database while the servers are stopped',
  'a backup replaces the database under running servers',
  'a backup replaces the database, and the server without losses starts first',
  'a backup replaces the database, and the tables are rewritten afterwards',
  'a backup replaces the database twice',
  'a backup replaces the database, and every connection is cut during the first claims',
  'a backup replaces the database, and a new server without a witness starts first',
] as const
const HARMLESS = [
  'both servers are restarted',
  'one server is restarted next to the other',
  'every connection is cut',
  'the tables are rewritten',
  'a third server is added',
  'the order of the servers changes',
  'the pooler in front of the database is restarted',
] as const

type Case<K extends string> = {
  readonly name: string
  readonly kind: K
  /** The time that the second server believes in. */
  readonly clock: number
  readonly isShared: boolean
  readonly loser: (typeof LOSERS)[number]
}

function combine<K extends string>(kinds: readonly K[]): Case<K>[] {
  return kinds
    .flatMap((kind) =>
      CLOCKS.flatMap(([clockName, clock]) =>
        DIRECTORIES.flatMap((directories) =>
          LOSERS.map((loser) => ({
            name: `${kind}; ${directories}, ${clockName}, ${loser}`,
            kind,
            clock: NOW + clock,
            isShared: directories === 'a shared directory',
            loser,
          })),
        ),
      ),
    )
    .filter((_, n) => n % SAMPLE === 0)
}

/** Claims; a refusal with 503 is counted. */
async function claimInto(
  history: History,
  { store }: { readonly store: Store },
  count: number,
): Promise<void> {
  for (let n = 0; n < count; n++) {
    try {
      history.issued(await claim(store))
    } catch (error) {
      if (!(error instanceof MatrixError && error.status === 503)) throw error
      history.refusals++
    }
  }
}

class Servers {
  readonly #database: RewindableDatabase
  readonly #url: string
  readonly #directories: readonly [string, string]
  readonly all: Opened[] = []

  /** @param url of the database; may lead through a pooler */
  constructor(database: RewindableDatabase, isShared: boolean, url = database.url) {
    const first = database.newDirectory()
    this.#database = database
    this.#url = url
    this.#directories = [first, isShared ? first : database.newDirectory()]
  }

  async start(which: 0 | 1, clock: number): Promise<Opened> {
    // The second server has the wrong clock.
    const now = (): number => (which === 1 ? clock : NOW)
    const opened = await this.#database.open(this.#directories[which], now, this.#url)
    this.all.push(opened)
    return opened
  }

  get raises(): number {
    return this.all.flatMap(({ events }) => events).filter(({ kind }) => kind === 'raised').length
  }
}

suite('accidents over PostgreSQL', { skip, concurrency: 4 }, () => {
  for (const { name, kind, clock, isShared, loser } of combine(ACCIDENTS)) {
    test(name, async () => {
      await using database = await RewindableDatabase.create()
      const servers = new Servers(database, isShared)
      const history = new History()
      const setUp = [await servers.start(0, clock), await servers.start(1, clock)] as const
      const session = await login(setUp[0].store, NOW)
      await upload(setUp[0].store, session, keys(0, 40))
      await claimInto(history, setUp[1], 2)
      for (const { store } of setUp) await store.close()
      const rounds = kind.endsWith('twice') ? 2 : 1
      let raised = 0
      for (let round = 0; round < rounds; round++) {
        await database.backUp()
        const running = [await servers.start(0, clock), await servers.start(1, clock)] as const
        if (loser !== 'the second') await claimInto(history, running[0], 3)
        if (loser !== 'the first') await claimInto(history, running[1], 3)
        const staysUp = kind.endsWith('under running servers')
        if (!staysUp) for (const { store } of running) await store.close()
        await database.restore()
        let after: readonly Opened[] = running
        if (!staysUp) {
          const lossless = loser === 'the first' ? 1 : 0
          const stranger = kind.includes('new server') ? await database.open() : undefined
          const its = stranger && claimInto(history, stranger, 2)
          const first = await servers.start(lossless, clock)
          if (kind.endsWith('rewritten afterwards')) await database.query(`vacuum full stream`)
          const early = kind.endsWith('starts first') ? claimInto(history, first, 2) : undefined
          after = [first, await servers.start(lossless === 0 ? 1 : 0, clock)]
          await early
          await its
          await stranger?.store.close()
        }
        const claims = Promise.all(after.map((server) => claimInto(history, server, 6)))
        if (kind.includes('is cut')) await database.cutAll()
        await claims
        // A claim that met the raise itself was refused; the next ones find the pools purged.
        for (const server of after) await claimInto(history, server, 2)
        for (const { store } of after) await store.close()
        raised++
        assert.ok(servers.raises >= raised, 'the fence was not raised')
      }
      history.assertOnce()
    })
  }
})

suite('harmless events over PostgreSQL', { skip, concurrency: 4 }, () => {
  for (const { name, kind, clock, isShared, loser } of combine(HARMLESS)) {
    test(name, { skip: kind.includes('pooler') && noPgbouncer }, async () => {
      await using database = await RewindableDatabase.create()
      await using pooler = kind.includes('pooler') ? await startPgbouncer(database.url, 'session') : undefined
      const servers = new Servers(database, isShared, pooler?.through(database.url))
      const history = new History()
      let running: Opened[] = [await servers.start(0, clock), await servers.start(1, clock)]
      const [first, second] = running
      assert.ok(first && second)
      const session = await login(first.store, NOW)
      await upload(first.store, session, keys(0, 40))
      if (loser !== 'the second') await claimInto(history, first, 3)
      if (loser !== 'the first') await claimInto(history, second, 3)
      switch (kind) {
        case 'both servers are restarted':
          for (const { store } of running) await store.close()
          running = [await servers.start(0, clock), await servers.start(1, clock)]
          break
        case 'one server is restarted next to the other':
          await second.store.close()
          running = [first, await servers.start(1, clock)]
          break
        case 'the order of the servers changes':
          for (const { store } of running) await store.close()
          running = [await servers.start(1, clock), await servers.start(0, clock)]
          break
        case 'every connection is cut':
          await database.cutAll()
          // A statement that the cut itself meets may fail once.
          for (const { store } of running) await store.ready().catch(() => {})
          break
        case 'the tables are rewritten':
          await database.query(`vacuum full stream`)
          break
        case 'a third server is added':
          running = [...running, await database.open(database.newDirectory(), () => clock)]
          break
        case 'the pooler in front of the database is restarted':
          await pooler?.restart()
          break
      }
      // A statement on a connection that was cut may fail once; it was not answered, and is repeated.
      if (kind === 'every connection is cut' || pooler !== undefined)
        for (const { store } of running) await store.ready().catch(() => {})
      for (const server of running) await claimInto(history, server, 3)
      assert.equal(servers.raises, 0)
      assert.equal(history.refusals, 0)
      history.assertOnce()
    })
  }
})
