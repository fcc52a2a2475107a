/** The rules of a reset in their order (key-pool.md "Reset"): a device, a reset, the answer and the log after it. */
import {
  decideResetOn,
  deviceWith,
  keys,
  logOf,
  NOW,
  outcomesOf,
  refusalOf,
  type ResetSetup,
  save,
  SESSION,
  shortName,
} from '@latchkey/testing/pool-facts.ts'
import { countsOf, type MemoryDevice } from '@latchkey/testing/memory-device.ts'
import type { KeyMaterial } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryOf } from './conflict.ts'
import type { ResetCommand } from './commands.ts'
import { DEFAULT_POOL_POLICY } from './policy.ts'
import { keyPoolOf } from './pool-answer.ts'
import { checkPreconditions, factsForReset } from './reset.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const IDENTITY = { ed25519: 'e1' as KeyMaterial }

type Row = {
  readonly name: string
  readonly device: Parameters<typeof deviceWith>[0]
  readonly reset: ResetSetup
  readonly withdrawn: string
  readonly absent?: string
  readonly outcomes?: string
  readonly log: string
  /** The version moves by one if anything changed, the generation if keys left; the device is woken for that. */
  readonly changed?: boolean
  readonly left?: boolean
}

const ROWS: readonly Row[] = [
  {
    name: 'a reset of all withdraws every available key of every pool, and no fallback key',
    device: { log: 'x/A=a B=b A=a:issued', fallbacks: 'F=f' },
    reset: { withdraw: 'all' },
    withdrawn: 'B x/A',
    log: 'x/A=a:withdrawn B=b:withdrawn A=a:issued',
    left: true,
  },
  {
    name: 'a reset of an empty pool changes nothing',
    device: { log: 'A=a:issued', fallbacks: 'F=f' },
    reset: { withdraw: 'all' },
    withdrawn: '',
    log: 'A=a:issued',
  },
  {
    name: 'a reset of all keeps a key that the request offers again',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'all', keys: 'B=b C=c' },
    withdrawn: 'A',
    outcomes: 'B already_stored, C stored',
    log: 'A=a:withdrawn B=b C=c',
    left: true,
  },
  {
    name: 'a reset of all keeps a key that the request offers under another ID',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'all', keys: 'C=b' },
    withdrawn: 'A',
    outcomes: 'C already_stored as B',
    log: 'A=a:withdrawn B=b',
    left: true,
  },
  {
    name: 'a reset of all does not keep a key for an offer of another algorithm',
    device: { log: 'A=a' },
    reset: { withdraw: 'all', keys: 'x/A=a' },
    withdrawn: 'A',
    outcomes: 'x/A stored',
    log: 'A=a:withdrawn x/A=a',
    left: true,
  },
  {
    name: 'a reset of all that offers every key again changes nothing',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'all', keys: 'A=a B=b' },
    withdrawn: '',
    outcomes: 'A already_stored, B already_stored',
    log: 'A=a B=b',
  },
  {
    name: 'a reset of all may use the ID of a withdrawn key again',
    device: { log: 'A=a' },
    reset: { withdraw: 'all', keys: 'A=b' },
    withdrawn: 'A',
    outcomes: 'A stored',
    log: 'A=a:withdrawn A=b',
    left: true,
  },
  {
    name: 'a reset of names withdraws those and lists the ones that are absent',
    device: { log: 'A=a B=b C=c:issued' },
    reset: { withdraw: 'A C D x/A' },
    withdrawn: 'A',
    absent: 'C D x/A',
    log: 'A=a:withdrawn B=b C=c:issued',
    left: true,
  },
  {
    name: 'a name that is listed twice is withdrawn once',
    device: { log: 'A=a' },
    reset: { withdraw: 'A A' },
    withdrawn: 'A',
    log: 'A=a:withdrawn',
    left: true,
  },
  {
    name: 'a reset of names that are all absent changes nothing',
    device: { log: 'A=a:issued B=b' },
    reset: { withdraw: 'A' },
    withdrawn: '',
    absent: 'A',
    log: 'A=a:issued B=b',
  },
  {
    name: 'a named key that the request offers again is kept, and neither withdrawn nor absent',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'A B', keys: 'A=a' },
    withdrawn: 'B',
    outcomes: 'A already_stored',
    log: 'A=a B=b:withdrawn',
    left: true,
  },
  {
    name: 'a named key is not kept for an offer of the same material in another algorithm',
    device: { log: 'A=a' },
    reset: { withdraw: 'A', keys: 'x/B=a' },
    withdrawn: 'A',
    outcomes: 'x/B stored',
    log: 'A=a:withdrawn x/B=a',
    left: true,
  },
  {
    name: 'the ID of a named key may be used again with other material',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'A', keys: 'A=c' },
    withdrawn: 'A',
    outcomes: 'A stored',
    log: 'A=a:withdrawn B=b A=c',
    left: true,
  },
  {
    name: 'replacements alone move the version and do not wake the device',
    device: { log: 'A=a' },
    reset: { withdraw: '', keys: 'B=b', fallbacks: 'F=f' },
    withdrawn: '',
    outcomes: 'B stored, F fallback stored',
    log: 'A=a B=b',
    changed: true,
  },
  {
    name: 'replacements over the cap evict the oldest keys that are left',
    device: { log: 'A=a B=b C=c' },
    reset: { withdraw: 'A', keys: 'D=d E=e', policy: { keysPerPool: 3 } },
    withdrawn: 'A',
    outcomes: 'D stored, E stored, B evicted',
    log: 'A=a:withdrawn B=b:evicted C=c D=d E=e',
    left: true,
  },
  {
    name: 'replacements that only evict move the generation and wake the device',
    device: { log: 'A=a B=b' },
    reset: { withdraw: '', keys: 'C=c', policy: { keysPerPool: 2 } },
    withdrawn: '',
    outcomes: 'C stored, A evicted',
    log: 'A=a:evicted B=b C=c',
    left: true,
  },
  {
    name: 'a reset of all that keeps a key evicts that key first over the cap',
    device: { log: 'A=a B=b' },
    reset: { withdraw: 'all', keys: 'B=b C=c', policy: { keysPerPool: 1 } },
    withdrawn: 'A',
    outcomes: 'B already_stored, C stored, B evicted',
    log: 'A=a:withdrawn B=b:evicted C=c',
    left: true,
  },
]

for (const { name, device: setup, reset, withdrawn, absent = '', outcomes = '', log, ...row } of ROWS) {
  test(name, () => {
    const device = deviceWith(setup)
    const { result, replayed } = save(device, decideResetOn(device, reset))
    assert.equal(replayed, false)
    assert.equal(result.withdrawn.map(shortName).join(' '), withdrawn)
    assert.equal(result.absent.map(shortName).join(' '), absent)
    assert.equal(outcomesOf(result), outcomes)
    assert.equal(logOf(device), log)
    const left = row.left ?? false
    const changed = left || (row.changed ?? false)
    assert.deepEqual([device.version, device.generation], [changed ? 8 : 7, left ? 4 : 3])
    assert.deepEqual([result.status.version, result.status.generation], [device.version, device.generation])
    assert.equal(device.signals, left ? 1 : 0)
    for (const [algorithm, pool] of deviceWith(setup).pools) {
      if (reset.fallbacks === undefined)
        assert.deepEqual(device.pools.get(algorithm)?.fallback, pool.fallback)
    }
  })
}

test('every answer acknowledges the counts that it carries', () => {
  assert.equal(decideResetOn(deviceWith({}), { withdraw: 'all' }).changes.countsAcknowledged, true)
})

test('a conflict among the replacements is 400 with nothing withdrawn, under heal too', () => {
  for (const onConflict of ['reject', 'heal'] as const) {
    const refused = tryOf(keys('B=c'), NOW - 2_000)
    const device = deviceWith({ log: 'A=a B=b', refused })
    const decision = decideResetOn(device, { withdraw: 'A', keys: 'B=c', policy: { onConflict } })
    assert.equal(refusalOf(decision), '400 M_DUPLICATE_ONE_TIME_KEY')
    assert.deepEqual(decision.changes, {})
  }
})

type Remembered = { readonly answer: string; readonly ts: number }

function remembering(count: number, ts = NOW - 1): Map<string, Remembered> {
  return new Map(Array.from({ length: count }, (_, n) => [`other ${n}`, { answer: '', ts }]))
}

test('a request ID is answered again for a day, at no cost and without a change', () => {
  const device = deviceWith({ log: 'A=a' })
  const reset = { withdraw: 'all', keys: 'B=b', requestId: 'one' }
  const { result } = save(device, decideResetOn(device, reset))
  for (const wait of [0, 1_000]) {
    const late = { ...reset, ifVersion: 7, waitMs: wait, now: NOW + DAY_MS - 1 }
    assert.deepEqual(decideResetOn(device, late), {
      kind: 'answer',
      answer: { result, replayed: true },
      changes: {},
    })
  }
})

test('after a day the same request ID resets again, and its answer is remembered in place of the former one', () => {
  const device = deviceWith({ log: 'A=a' })
  save(device, decideResetOn(device, { withdraw: 'all', requestId: 'one' }))
  const again = decideResetOn(device, { withdraw: 'all', requestId: 'one', now: NOW + DAY_MS })
  const { result, replayed } = save(device, again)
  assert.deepEqual([replayed, result.withdrawn], [false, []])
  assert.equal(device.replays.get('one')?.ts, NOW + DAY_MS)
})

test('a reset without a request ID is remembered nowhere', () => {
  const device = deviceWith({ log: 'A=a' })
  save(device, decideResetOn(device, { withdraw: 'all' }))
  assert.equal(device.replays.size, 0)
})

test('answers that are a day old are forgotten, younger ones are not', () => {
  const replays = new Map([
    ...remembering(1, NOW - DAY_MS),
    ['young', { answer: '', ts: NOW - DAY_MS + 1 }] as const,
  ])
  const device = deviceWith({ replays })
  save(device, decideResetOn(device, { withdraw: 'all', requestId: 'one' }))
  assert.deepEqual([...device.replays.keys()], ['young', 'one'])
})

const LIMIT_ROWS: readonly (readonly [string, MemoryDevice, Partial<ResetSetup>, string | undefined])[] = [
  [
    '999 remembered answers leave room for one',
    deviceWith({ replays: remembering(999) }),
    { requestId: 'one' },
    undefined,
  ],
  [
    'with 1 000 remembered answers another request ID is 429',
    deviceWith({ replays: remembering(1_000) }),
    { requestId: 'one' },
    '429 M_LIMIT_EXCEEDED',
  ],
  [
    'with 1 000 remembered answers a reset without a request ID is answered',
    deviceWith({ replays: remembering(1_000) }),
    {},
    undefined,
  ],
  [
    'answers that are a day old do not count',
    deviceWith({ replays: remembering(1_000, NOW - DAY_MS) }),
    { requestId: 'one' },
    undefined,
  ],
  ['a reset over the rate limit is 429', deviceWith({}), { waitMs: 1 }, '429 M_LIMIT_EXCEEDED'],
  ['a reset for another epoch is 409', deviceWith({}), { ifEpoch: 'other' }, '409 M_POOL_CHANGED'],
  ['a reset for another generation is 409', deviceWith({}), { ifGeneration: 2 }, '409 M_POOL_CHANGED'],
  ['a reset for another version is 409', deviceWith({}), { ifVersion: 8 }, '409 M_POOL_CHANGED'],
  [
    'a reset whose preconditions all hold is answered',
    deviceWith({}),
    { ifEpoch: 'epoch', ifGeneration: 3, ifVersion: 7 },
    undefined,
  ],
  [
    'unsigned replacements are refused after a change of identity',
    deviceWith({ identity: IDENTITY, identityChanged: true }),
    { keys: 'A=a', checked: [IDENTITY] },
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'unsigned replacements are refused if the operator demands signatures',
    deviceWith({ identity: IDENTITY }),
    { keys: 'A=a', checked: [IDENTITY], policy: { verifySignatures: true } },
    '400 M_INVALID_SIGNATURE',
  ],
  ['unsigned replacements are accepted by default', deviceWith({}), { keys: 'A=a' }, undefined],
  [
    'the daily budget bounds replacements',
    deviceWith({ counts: countsOf({ device_keys: 5 }, NOW) }),
    { keys: 'A=a', policy: { keysPerDeviceAndDay: 5 } },
    '429 M_LIMIT_EXCEEDED',
  ],
  [
    'the rate limit comes before preconditions',
    deviceWith({}),
    { waitMs: 1, ifVersion: 8 },
    '429 M_LIMIT_EXCEEDED',
  ],
  [
    'preconditions come before the number of remembered answers',
    deviceWith({ replays: remembering(1_000) }),
    { requestId: 'one', ifVersion: 8 },
    '409 M_POOL_CHANGED',
  ],
  [
    'the number of remembered answers comes before signatures',
    deviceWith({ replays: remembering(1_000), identity: IDENTITY, identityChanged: true }),
    { requestId: 'one', keys: 'A=a', checked: [IDENTITY] },
    '429 M_LIMIT_EXCEEDED',
  ],
  [
    'signatures come before conflicts',
    deviceWith({ identity: IDENTITY, identityChanged: true, log: 'A=a' }),
    { withdraw: '', keys: 'A=b', checked: [IDENTITY] },
    '400 M_INVALID_SIGNATURE',
  ],
]

for (const [name, device, reset, refusal] of LIMIT_ROWS) {
  test(name, () => {
    const decision = decideResetOn(device, { withdraw: 'all', ...reset })
    assert.equal(refusalOf(decision), refusal)
    if (refusal !== undefined) assert.deepEqual(decision.changes, {}, 'nothing is stored')
  })
}

test('signatures that were not checked yet are asked for', () => {
  const device = deviceWith({ identity: IDENTITY, identityChanged: true })
  assert.deepEqual(decideResetOn(device, { withdraw: 'all', keys: 'A=a' }), {
    kind: 'verify',
    identity: IDENTITY,
    changes: {},
  })
})

test('preconditions are checked as epoch, generation, version; the error has the current key pool', () => {
  const status = { epoch: 'e', version: 7, generation: 3, algorithms: [] }
  const message = (precondition: Parameters<typeof checkPreconditions>[0]): string => {
    try {
      checkPreconditions(precondition, status)
      return ''
    } catch (error) {
      assert.ok(error instanceof Error && 'extra' in error)
      assert.deepEqual(error.extra, { 'dev.latchkey.key_pool': keyPoolOf(status) })
      return error.message
    }
  }
  assert.match(message({ ifEpoch: 'f', ifGeneration: 1, ifVersion: 1 }), /^Expected epoch f, found e/)
  assert.match(message({ ifGeneration: 1, ifVersion: 1 }), /^Expected generation 1, found 3/)
  assert.match(message({ ifVersion: 1 }), /^Expected version 1, found 7/)
  assert.equal(message({}), '')
})

test('a reset that has to wait asks only for the answer to replay', () => {
  const command: ResetCommand = {
    session: SESSION,
    withdrawal: { all: true },
    requestId: 'R',
    oneTimeKeys: keys('A=a'),
    fallbackKeys: [],
    now: NOW,
  }
  const { oneTimeKeys, fallbackKeys, available, replay } = factsForReset(command, DEFAULT_POOL_POLICY, 1)
  assert.deepEqual([oneTimeKeys, fallbackKeys, available], [[], [], []])
  assert.equal(replay?.requestId, 'R')
})
