/** The contract of `Store.exclusively`: cases of the contract (cases.ts). */
import { equal, rejects } from './expect.ts'
import type { StoreCase } from './store-case.ts'

export const EXCLUSIVE_CASES: readonly StoreCase[] = [
  {
    name: 'exclusive work of several handles never overlaps, and all of it is done',
    async run(place) {
      const handles = Array.from({ length: 3 }, () => place.open())
      let running = 0
      let most = 0
      const done: number[] = []
      await Promise.all(
        [...handles, ...handles].map((handle, i) =>
          handle.exclusively(async () => {
            most = Math.max(most, ++running)
            // Long enough for another holder to enter, if the lock let it.
            for (let turn = 0; turn < 5; turn++) await handle.generation()
            running--
            done.push(i)
          }),
        ),
      )
      equal(most, 1)
      equal(done.toSorted(), [0, 1, 2, 3, 4, 5])
    },
  },
  {
    name: 'reading and changing under the lock needs no second try',
    async run(place) {
      const count = async (): Promise<void> => {
        const store = place.open()
        for (let i = 0; i < 5; i++) {
          await store.exclusively(async () => {
            const { generation, records } = await store.read()
            const next = Number(records.get('count') ?? 0) + 1
            await store.write(generation, new Map([['count', String(next)]]))
          })
        }
      }
      await Promise.all([count(), count()])
      equal((await place.open().read()).records.get('count'), '10')
    },
  },
  {
    name: 'the lock ends with its work, failed or not, and what the work returns or throws is passed on',
    async run(place) {
      const [one, other] = [place.open(), place.open()]
      equal(await one.exclusively(() => Promise.resolve('result')), 'result')
      const fault = Object.assign(new Error('the work failed'), { name: 'WorkFailed' })
      await rejects(
        one.exclusively(() => Promise.reject(fault)),
        'WorkFailed',
      )
      equal(await other.exclusively(() => Promise.resolve('mine now')), 'mine now')
      equal(await one.exclusively(() => Promise.resolve('and mine')), 'and mine')
    },
  },
  {
    name: 'the lock does not block reads and writes',
    async run(place) {
      const [holder, other] = [place.open(), place.open()]
      await holder.exclusively(async () => {
        equal(await other.write(0, new Map([['a', '1']])), 1)
        equal((await other.read()).records.get('a'), '1')
      })
    },
  },
]
