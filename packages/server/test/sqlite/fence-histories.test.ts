/**
 * Random histories of writes, starts, crashes and restores against the two guarantees of the fence (key-pool.md): no
 * one-time key is issued twice, and the fence is raised only if acknowledged writes are lost.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Session } from '../../src/session.ts'
import { login } from '../store-contract/test-device.ts'
import { type Copy, type Opened, RewindableDirectory } from '../support/rewindable-directory.ts'
import { claim, keys, kindsOf, NOW, send, sync, tokenOf, upload } from '../support/store-calls.ts'

const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 8)

type Step =
  | { readonly type: 'upload' | 'claim'; readonly count: number }
  | { readonly type: 'back up' | 'start again' }
  | { readonly type: 'crash'; readonly claims: number; readonly turns: number }
  | { readonly type: 'restore' | 'restore with its witness'; readonly backup: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('upload' as const), count: fc.integer({ min: 1, max: 5 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ type: fc.constant('claim' as const), count: fc.integer({ min: 1, max: 6 }) }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constantFrom('back up' as const, 'start again' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('crash' as const), claims: fc.nat(6), turns: fc.nat(6) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constantFrom('restore' as const, 'restore' as const, 'restore with its witness' as const),
      backup: fc.nat(9),
    }),
  },
)

class History {
  readonly #directory: RewindableDirectory
  readonly #session: Session
  readonly #backups: { readonly copy: Copy; readonly lastWrite: number }[] = []
  readonly #issued = new Set<string>()
  #opened: Opened
  /** Every acknowledged write has a number of its own, across all histories of the database. */
  #writes = 0
  #lastWrite = 0
  #keys = 0
  #messages = 0

  static async begin(): Promise<History> {
    const directory = new RewindableDirectory()
    const opened = await directory.open()
    const history = new History(directory, opened, await login(opened.store, NOW))
    history.#wrote()
    history.#backUp()
    return history
  }

  private constructor(directory: RewindableDirectory, opened: Opened, session: Session) {
    this.#directory = directory
    this.#opened = opened
    this.#session = session
  }

  async take(next: Step): Promise<void> {
    switch (next.type) {
      case 'upload':
        return this.#upload(next.count)
      case 'claim':
        for (const key of await Promise.all(this.#claims(next.count))) this.#gotKey(key)
        return this.#wrote()
      case 'back up':
        return this.#backUp()
      case 'start again':
        await this.#opened.store.close()
        return this.#open('stands')
      case 'crash':
        return this.#crash(next.claims, next.turns)
      case 'restore':
      case 'restore with its witness': {
        const backup = this.#backups[next.backup % this.#backups.length]
        assert.ok(backup)
        return next.type === 'restore'
          ? this.#restore(backup.copy, backup.lastWrite)
          : this.#restoreWithWitness(backup.copy)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]()
  }

  async #upload(count: number): Promise<void> {
    this.#keys += count
    const { outcomes } = await upload(this.#opened.store, this.#session, keys(this.#keys - count, this.#keys))
    assert.ok([...outcomes.values()].every((outcome) => outcome === 'stored'))
    this.#wrote()
  }

  #claims(count: number): Promise<string | undefined>[] {
    return Array.from({ length: count }, () => claim(this.#opened.store))
  }

  #gotKey(key: string | undefined): void {
    if (key === undefined) return
    assert.ok(!this.#issued.has(key), `${key} was issued twice`)
    this.#issued.add(key)
  }

  #backUp(): void {
    this.#backups.push({ copy: this.#directory.copy(), lastWrite: this.#lastWrite })
  }

  /** Answers before the crash count; later ones never left the process. */
  async #crash(count: number, turns: number): Promise<void> {
    const answered: (string | undefined)[] = []
    const pending = this.#claims(count).map(async (key) => answered.push(await key))
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
    for (const key of answered) this.#gotKey(key)
    const left = this.#directory.copy()
    await Promise.all(pending)
    await this.#opened.store.close()
    this.#directory.putBack(left, { witness: true })
    await this.#open('stands')
    // It is not known whether the claims were committed. This upload is.
    await this.#upload(1)
  }

  async #restore(copy: Copy, lastWrite: number): Promise<void> {
    await this.#opened.store.close()
    this.#directory.putBack(copy, { witness: false })
    await this.#open(lastWrite === this.#lastWrite ? 'stands' : 'raised')
    if (lastWrite !== this.#lastWrite) this.#wrote()
  }

  /** The witness does not detect this restore; the token of a client does. */
  async #restoreWithWitness(copy: Copy): Promise<void> {
    await send(this.#opened.store, this.#session, ++this.#messages)
    const token = tokenOf(await sync(this.#opened.store, this.#session))
    await this.#opened.store.close()
    this.#directory.putBack(copy, { witness: true })
    await this.#open('stands')
    const reading = await sync(this.#opened.store, this.#session, token)
    assert.deepEqual(kindsOf(this.#opened.events), ['stands', 'raised'])
    assert.ok(reading.newEpoch)
    this.#wrote()
  }

  async #open(expected: 'stands' | 'raised'): Promise<void> {
    this.#opened = await this.#directory.open()
    assert.deepEqual(kindsOf(this.#opened.events), [expected])
  }

  #wrote(): void {
    this.#lastWrite = ++this.#writes
  }
}

test('in every history no key is issued twice, and the fence is raised if and only if writes are lost', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      await using history = await History.begin()
      for (const next of steps) await history.take(next)
    }),
    { numRuns: RUNS },
  )
})
