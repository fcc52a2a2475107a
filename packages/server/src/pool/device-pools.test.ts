/** Version, generation and the list of pools of a device during a request. */
import { deviceWith, key, keys, NOTHING_WANTED, NOW } from '@latchkey/testing/pool-facts.ts'
import { loadFacts } from '@latchkey/testing/memory-device.ts'
import type { Algorithm } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DevicePools } from './device-pools.ts'
import { IDENTITY_PURGE } from './purge.ts'
import type { DeviceFacts } from './port.ts'

const X = 'x' as Algorithm

function factsOf(setup: Parameters<typeof deviceWith>[0]): DeviceFacts {
  return loadFacts(deviceWith(setup), { ...NOTHING_WANTED, oneTimeKeys: keys('A=a') })
}

/** The numbers after a change; before it the version is 7 and the generation 3. */
const ROWS: readonly (readonly [string, (pools: DevicePools) => void, boolean, number, number])[] = [
  ['nothing', () => {}, false, 7, 3],
  ['an appended key', (pools) => pools.get(key('B=b').algorithm)?.append(keys('B=b')), false, 8, 3],
  [
    'keys appended to two pools',
    (pools) => [pools.open(X), ...pools.all].forEach((pool) => pool.append([key('B=b')])),
    false,
    8,
    3,
  ],
  ['a new fallback key', (pools) => pools.open(X).replaceFallback(key('F=f')), false, 8, 3],
  ['an opened pool that stays empty', (pools) => pools.open(X), false, 7, 3],
  ['keys that left', () => {}, true, 8, 4],
  ['a purge', (pools) => pools.purge(IDENTITY_PURGE), true, 8, 4],
]

for (const [name, change, left, version, generation] of ROWS) {
  test(`${name}: version 7 becomes ${version}, generation 3 becomes ${generation}`, () => {
    const facts = factsOf({ log: 'A=a' })
    const pools = new DevicePools(facts)
    change(pools)
    const status = pools.status({ left })
    assert.deepEqual([status.epoch, status.version, status.generation], ['epoch', version, generation])
    const changes = pools.changes({ left, signal: true, now: NOW })
    assert.equal(changes === undefined, version === 7)
    if (changes === undefined) return
    assert.deepEqual([changes.version, changes.generation], [version, generation])
    assert.deepEqual([changes.now, changes.signal], [NOW, true])
  })
}

test('only pools that changed are saved, and a new one as new', () => {
  const facts = factsOf({ log: 'A=a y/B=b' })
  const pools = new DevicePools(facts)
  pools.open(X).append([key('x/C=c')])
  pools.open('y' as Algorithm).append([key('y/C=c')])
  const changes = pools.changes({ left: false, signal: false, now: NOW })
  assert.deepEqual(
    changes?.pools.map(({ algorithm, isNew }) => [algorithm as string, isNew]),
    [
      ['y', false],
      ['x', true],
    ],
  )
})

test('pools are listed by algorithm in code-point order, new ones among them', () => {
  const pools = new DevicePools(factsOf({ log: '\u{1F511}/A=a \uFFFD/A=a b/A=a' }))
  pools.open('a' as Algorithm).append([key('a/A=a')])
  pools.open('empty' as Algorithm)
  const names = (): string[] => pools.status().algorithms.map(({ algorithm }) => algorithm)
  assert.deepEqual(names(), ['a', 'b', '\uFFFD', '\u{1F511}'])
  assert.deepEqual([...pools.algorithms].sort(), ['empty', ...names()].sort())
})

test('a purge reaches every pool', () => {
  const pools = new DevicePools(factsOf({ log: 'A=a x/B=b', fallbacks: 'y/F=f' }))
  pools.purge(IDENTITY_PURGE)
  assert.deepEqual(
    pools.status({ left: true }).algorithms.map(({ count, fallback }) => [count, fallback]),
    [
      [0, undefined],
      [0, undefined],
      [0, undefined],
    ],
  )
})
