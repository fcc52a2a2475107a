/** The heal budget, with wrong clocks and with upkeep. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryStore } from '../store/memory.ts'
import { StoredState } from '../store/stored-state.ts'
import { DEFAULT_BUDGET, type HealCause, HEALS, noteHeal, waitForHeal } from './heals.ts'

const DAY_MS = 86_400_000
const NOW = 1_700_000_000_000

async function noted(...heals: readonly [at: number, cause?: HealCause][]): Promise<StoredState> {
  const state = await StoredState.open(memoryStore(), [HEALS])
  await state.update((transaction) => {
    for (const [at, cause = 'unknown_keys'] of heals) {
      noteHeal(transaction, { at, cause, detail: 'a test', ok: true, keys: [] })
    }
  })
  return state
}

function wait(state: StoredState, now = NOW): Promise<number> {
  return state.read((view) => waitForHeal(view, DEFAULT_BUDGET, now))
}

test('each heal of a day doubles the pause after it, and the tenth is the last', async () => {
  assert.equal(await wait(await noted()), 0)
  assert.equal(await wait(await noted([NOW])), 1_000)
  assert.equal(await wait(await noted([NOW - 500], [NOW - 100])), 1_900)
  const ten = Array.from({ length: 10 }, (): [number] => [NOW - DAY_MS / 2])
  assert.equal(await wait(await noted(...ten)), Number.POSITIVE_INFINITY)
  assert.equal(await wait(await noted(...ten), NOW + DAY_MS), 0)
})

test('with the clock moved back no heal waits until it has caught up', async () => {
  assert.equal(await wait(await noted([NOW + DAY_MS / 2])), 0)
  const future = Array.from({ length: 10 }, (): [number] => [NOW + 40 * DAY_MS])
  assert.equal(await wait(await noted(...future)), 0)
  const soon = Array.from({ length: 10 }, (): [number] => [NOW + 60_000])
  assert.equal(
    await wait(await noted(...soon)),
    Number.POSITIVE_INFINITY,
    'a small correction refills nothing',
  )
})

test('upkeep does not count, and does not displace heals that count', async () => {
  const upkeep = Array.from({ length: 300 }, (): [number, HealCause] => [NOW, 'private_keys_evicted'])
  const counted = Array.from({ length: 10 }, (): [number] => [NOW])
  assert.equal(await wait(await noted(...upkeep)), 0)
  const state = await noted(...counted, ...upkeep)
  assert.equal(await wait(state), Number.POSITIVE_INFINITY)
  assert.equal(await state.read((view) => view.all(HEALS).size), 110)
})
