import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tooLarge, unavailable } from '../../matrix-error.ts'
import { Batches, type BatchOptions, type Ran } from './batches.ts'

type Run = { readonly items: readonly number[]; readonly end: () => void }

/** Batches that the test ends one by one; each item's result is itself. */
function held(options: Partial<BatchOptions<number, number>> = {}): {
  readonly batches: Batches<number, number>
  readonly next: () => Promise<Run>
} {
  const begun: Run[] = []
  const listeners: ((run: Run) => void)[] = []
  const batches = new Batches<number, number>({
    atOnce: 1,
    maxSize: 10,
    run: (items) =>
      new Promise<Ran<number>>((resolve) => {
        const run = { items, end: (): void => resolve(itself(items)) }
        const listener = listeners.shift()
        if (listener === undefined) begun.push(run)
        else listener(run)
      }),
    ...options,
  })
  const next = async (): Promise<Run> => begun.shift() ?? new Promise((resolve) => listeners.push(resolve))
  return { batches, next }
}

function itself(items: readonly number[]): Ran<number> {
  return { outcomes: items.map((value) => ({ status: 'fulfilled', value })) }
}

test('a lone item goes at once; what comes while it runs goes together in the next batch, in order', async () => {
  const { batches, next } = held()
  const first = batches.submit(1)
  const run = await next()
  assert.deepEqual(run.items, [1])
  const rest = [2, 3, 4].map((n) => batches.submit(n))
  run.end()
  assert.equal(await first, 1)
  const second = await next()
  assert.deepEqual(second.items, [2, 3, 4])
  second.end()
  assert.deepEqual(await Promise.all(rest), [2, 3, 4])
})

test('no more batches run at a time than were allowed, and none is larger', async () => {
  const { batches, next } = held({ atOnce: 2, maxSize: 5, sizeOf: (n) => n })
  const asked = [2, 3, 9, 1, 1, 4].map((n) => batches.submit(n))
  const runs = [await next(), await next()]
  assert.deepEqual(
    runs.map(({ items }) => items),
    [[2, 3], [9]],
  )
  const third = next()
  const before = await Promise.race([third, new Promise((resolve) => setImmediate(resolve, 'none'))])
  assert.equal(before, 'none')
  for (const { end } of runs) end()
  const [two, three] = [await third, await next()]
  assert.deepEqual([two.items, three.items], [[1, 1], [4]])
  for (const { end } of [two, three]) end()
  await Promise.all(asked)
})

test('an item over the limit of waiting items is refused with 503, and the waiting ones are not affected', async () => {
  const { batches, next } = held({ maxWaiting: 2 })
  const first = batches.submit(1)
  const run = await next()
  const waiting = [batches.submit(2), batches.submit(3)]
  await assert.rejects(batches.submit(4), { status: 503 })
  run.end()
  const second = await next()
  second.end()
  assert.deepEqual(await Promise.all([first, ...waiting]), [1, 2, 3])
})

test('an item that waited too long for earlier ones is refused with 503', async () => {
  const { batches, next } = held({ maxWaitMs: 20 })
  const first = batches.submit(1)
  const run = await next()
  const late = batches.submit(2)
  for (const begin = performance.now(); performance.now() < begin + 25; );
  const fresh = batches.submit(3)
  run.end()
  await assert.rejects(late, { status: 503 })
  const second = await next()
  assert.deepEqual(second.items, [3])
  second.end()
  assert.deepEqual([await first, await fresh], [1, 3])
})

test('an item with a fault fails alone, whether its batch tells it apart or has to be taken apart', async () => {
  const runs: (readonly number[])[] = []
  const batches = new Batches<number, number>({
    atOnce: 1,
    maxSize: 10,
    async run(items) {
      runs.push(items)
      if (items.includes(3)) throw new Error('three')
      if (items.includes(4)) throw tooLarge('four')
      const outcomes = items.map((value) =>
        value === 2
          ? ({ status: 'rejected', reason: new Error('two') } as const)
          : ({ status: 'fulfilled', value } as const),
      )
      return { outcomes }
    },
  })
  const said = async (items: readonly number[]): Promise<unknown[]> =>
    (await Promise.allSettled(items.map((n) => batches.submit(n)))).map((result) =>
      result.status === 'fulfilled' ? result.value : (result.reason as Error).message,
    )
  assert.deepEqual(await said([1, 2, 5]), [1, 'two', 5])
  assert.deepEqual(runs, [[1, 2, 5]])
  assert.deepEqual(await said([1, 2, 3, 4, 5]), [1, 'two', 'three', 'four', 5])
  assert.deepEqual(runs.slice(1), [[1, 2, 3, 4, 5], [1], [2], [3], [4], [5]])
})

test('a failure of the database is everyone’s: nothing is tried again, because it may have been done', async () => {
  let runs = 0
  const batches = new Batches<number, number>({
    atOnce: 1,
    maxSize: 10,
    async run(items) {
      runs++
      if (items.includes(1)) throw unavailable('The database failed.')
      return { ...itself(items), acknowledged: Promise.reject(unavailable('The witness failed.')) }
    },
  })
  const results = await Promise.allSettled([1, 2, 3].map((n) => batches.submit(n)))
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected', 'rejected'],
  )
  assert.equal(runs, 1)
  await assert.rejects(batches.submit(2), { message: 'The witness failed.' })
})

test('an answer waits until what was done is acknowledged, the next batch does not', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const seen: number[] = []
  const batches = new Batches<number, number>({
    atOnce: 1,
    maxSize: 1,
    async run(items) {
      seen.push(...items)
      return { ...itself(items), ...(items.includes(1) && { acknowledged: promise }) }
    },
  })
  const answered: number[] = []
  const first = batches.submit(1).then((n) => answered.push(n))
  await batches.submit(2).then((n) => answered.push(n))
  assert.deepEqual([seen, answered], [[1, 2], [2]])
  resolve()
  await first
  assert.deepEqual(answered, [2, 1])
})
