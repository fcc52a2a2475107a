/** The rules of an upload in their order (key-pool.md "Upload"): a device, an upload, then the answer and the log. */
import {
  decideUploadOn,
  deviceWith,
  key,
  keys,
  logOf,
  NOW,
  outcomesOf,
  refusalOf,
  save,
  SESSION,
  type UploadSetup,
} from '@latchkey/testing/pool-facts.ts'
import { countsOf, type MemoryDevice, saveChanges } from '@latchkey/testing/memory-device.ts'
import type { KeyMaterial } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tryOf } from './conflict.ts'
import { BudgetError } from './daily-budget.ts'
import type { Identity } from './identity.ts'
import { DEFAULT_POOL_POLICY } from './policy.ts'
import { factsForUpload } from './upload.ts'

const FIRST = identity('e1', 'c1')
const SECOND = identity('e2', 'c2')
const HEAL = { onConflict: 'heal' } as const

function identity(ed25519: string, curve25519: string): Identity {
  return { ed25519: ed25519 as KeyMaterial, curve25519: curve25519 as KeyMaterial }
}

/** A device whose keys were published. */
function published(setup: Parameters<typeof deviceWith>[0] = {}): MemoryDevice {
  return deviceWith({ deviceKeys: JSON.stringify(FIRST), identity: FIRST, ...setup })
}

type Row = {
  readonly name: string
  readonly device: () => MemoryDevice
  readonly upload: UploadSetup
  readonly answer: string
  readonly log?: string
  /** Versions and generations are 7 and 3 before. */
  readonly version: number
  readonly generation?: number
  readonly signals?: number
  readonly purged?: string
}

const ROWS: readonly Row[] = [
  {
    name: 'an upload that stores a key moves the version by one',
    device: () => deviceWith({ log: 'A=a' }),
    upload: { keys: 'B=b C=c' },
    answer: 'B stored, C stored',
    log: 'A=a B=b C=c',
    version: 8,
  },
  {
    name: 'keys of two algorithms and a fallback key move the version by one',
    device: () => deviceWith({}),
    upload: { keys: 'A=a x/A=a', fallbacks: 'F=f' },
    answer: 'A stored, x/A stored, F fallback stored',
    log: 'A=a x/A=a',
    version: 8,
  },
  {
    name: 'the same upload again changes nothing',
    device: () => published({ log: 'A=a', fallbacks: 'F=f' }),
    upload: { identity: FIRST, keys: 'A=a', fallbacks: 'F=f' },
    answer: 'A already_stored, F fallback already_stored',
    log: 'A=a',
    version: 7,
  },
  {
    name: 'an upload of nothing changes nothing',
    device: () => deviceWith({ log: 'A=a' }),
    upload: {},
    answer: '',
    log: 'A=a',
    version: 7,
  },
  {
    name: 'the first identity is not a change: it purges nothing and leaves the version',
    device: () => deviceWith({ log: 'A=a', fallbacks: 'F=f' }),
    upload: { identity: FIRST },
    answer: '',
    log: 'A=a',
    version: 7,
  },
  {
    name: 'new device keys with the same identity purge nothing',
    device: () => published({ log: 'A=a' }),
    upload: { identity: FIRST, deviceKeys: 'another text' },
    answer: '',
    log: 'A=a',
    version: 7,
  },
  {
    name: 'a change of identity purges the pools and wakes the device',
    device: () => published({ log: 'A=a B=b:issued', fallbacks: 'F=f' }),
    upload: { identity: SECOND },
    answer: '',
    log: 'A=a:purged B=b:issued',
    version: 8,
    generation: 4,
    signals: 1,
    purged: 'identity_changed',
  },
  {
    name: 'a change of identity of a device without keys counts as a purge',
    device: () => published(),
    upload: { identity: SECOND },
    answer: '',
    log: '',
    version: 8,
    generation: 4,
    signals: 1,
    purged: 'identity_changed',
  },
  {
    name: 'eviction takes the oldest keys, moves the generation and does not wake the device',
    device: () => deviceWith({ log: 'C=c A=a B=b' }),
    upload: { keys: 'D=d E=e', policy: { keysPerPool: 3 } },
    answer: 'D stored, E stored, C evicted, A evicted',
    log: 'C=c:evicted A=a:evicted B=b D=d E=e',
    version: 8,
    generation: 4,
  },
  {
    name: 'an upload over the cap of an empty pool evicts its own first keys, which are remembered',
    device: () => deviceWith({}),
    upload: { keys: 'A=a B=b C=c', policy: { keysPerPool: 2 } },
    answer: 'A stored, B stored, C stored, A evicted',
    log: 'A=a:evicted B=b C=c',
    version: 8,
    generation: 4,
  },
  {
    name: 'a pool at its cap is not evicted from',
    device: () => deviceWith({ log: 'A=a B=b' }),
    upload: { keys: 'C=c A=a', policy: { keysPerPool: 3 } },
    answer: 'A already_stored, C stored',
    log: 'A=a B=b C=c',
    version: 8,
  },
  {
    name: 'eviction follows the upload order, also if claims follow the key ID',
    device: () => deviceWith({ log: 'C=c A=a' }),
    upload: { keys: 'B=b', policy: { keysPerPool: 2, claimOrder: 'key_id' } },
    answer: 'B stored, C evicted',
    log: 'C=c:evicted A=a B=b',
    version: 8,
    generation: 4,
  },
  {
    name: 'a new fallback key moves the version only',
    device: () => deviceWith({ log: 'A=a', fallbacks: 'F=f:used' }),
    upload: { fallbacks: 'G=g' },
    answer: 'G fallback stored',
    log: 'A=a',
    version: 8,
  },
  {
    name: 'a second try under heal purges the pool, stores the batch and wakes the device',
    device: () => deviceWith({ log: 'A=a B=b C=c:issued', refused: tryOf(keys('A=a2 B=b'), NOW - 2_000) }),
    upload: { keys: 'A=a2 B=b', policy: HEAL },
    answer: 'A stored, B stored',
    log: 'A=a:purged B=b:withdrawn C=c:issued A=a2 B=b',
    version: 8,
    generation: 4,
    signals: 1,
    purged: 'conflict_healed',
  },
  {
    name: 'a heal leaves pools without a conflict alone',
    device: () => deviceWith({ log: 'A=a x/A=a', refused: tryOf(keys('A=a2 x/B=b'), NOW - 2_000) }),
    upload: { keys: 'A=a2 x/B=b', policy: HEAL },
    answer: 'A stored, x/B stored',
    log: 'A=a:purged A=a2 x/A=a x/B=b',
    version: 8,
    generation: 4,
    signals: 1,
    purged: 'conflict_healed',
  },
  {
    name: 'a heal that evicts lists the keys of the batch over the cap',
    device: () => deviceWith({ log: 'A=a', refused: tryOf(keys('A=a2 B=b C=c'), NOW - 2_000) }),
    upload: { keys: 'A=a2 B=b C=c', policy: { ...HEAL, keysPerPool: 2 } },
    answer: 'A stored, B stored, C stored, A evicted',
    log: 'A=a:purged A=a2:evicted B=b C=c',
    version: 8,
    generation: 4,
    signals: 1,
    purged: 'conflict_healed',
  },
]

for (const { name, device: make, upload, answer, log, version, generation = 3, ...row } of ROWS) {
  test(name, () => {
    const device = make()
    const result = save(device, decideUploadOn(device, upload))
    assert.equal(outcomesOf(result), answer)
    if (log !== undefined) assert.equal(logOf(device), log)
    assert.deepEqual([device.version, device.generation], [version, generation])
    assert.deepEqual(
      [result.status.version, result.status.generation],
      [version, generation],
      'the answer has the numbers after the change',
    )
    assert.equal(device.signals, row.signals ?? 0)
    assert.equal(result.purged, row.purged)
    for (const { count, algorithm } of result.status.algorithms)
      assert.equal(device.pools.get(algorithm)?.count, count)
  })
}

test('an upload asks for its own keys only: no key of the pool is listed', () => {
  const command = { session: SESSION, oneTimeKeys: keys('A=a'), fallbackKeys: keys('F=f'), now: NOW }
  assert.deepEqual(factsForUpload(command, { ...DEFAULT_POOL_POLICY, keysPerPool: 9 }), {
    oneTimeKeys: keys('A=a'),
    fallbackKeys: keys('F=f'),
    available: [],
    keysPerPool: 9,
  })
})

test('every answer acknowledges the counts that it carries', () => {
  const device = deviceWith({ log: 'A=a' })
  assert.equal(decideUploadOn(device, {}).changes.countsAcknowledged, true)
})

test('an upload keeps the device keys that are new, and no others', () => {
  const device = published()
  const changes = (setup: UploadSetup): unknown => decideUploadOn(device, setup).changes.deviceKeys
  assert.deepEqual(changes({ identity: FIRST, deviceKeys: 'new text' }), {
    json: 'new text',
    identity: FIRST,
  })
  assert.equal(changes({ identity: FIRST }), undefined)
  assert.equal(changes({ keys: 'A=a' }), undefined)
})

test('a change of identity purges the fallback keys, hides issued keys and gives the former identity up', () => {
  const device = published({ log: 'A=a:issued', fallbacks: 'F=f:used' })
  save(device, decideUploadOn(device, { identity: SECOND }))
  assert.deepEqual(device.formerIdentities, [FIRST])
  assert.deepEqual([device.identity, device.identityChanged], [SECOND, true])
  const [pool] = device.pools.values()
  assert.deepEqual([pool?.fallback, pool?.firstShown], [undefined, 1])
  assert.deepEqual([...(pool?.formerFallbacks ?? [])], [key('F=f').hash])
  assert.equal(refusalOf(decideUploadOn(device, { identity: FIRST })), '400 M_INVALID_PARAM')
})

test('keys of the request that changes the identity are decided on the purged pools', () => {
  const device = published({ log: 'A=a' })
  const verify = decideUploadOn(device, { identity: SECOND, keys: 'A=b' })
  assert.deepEqual(verify, { kind: 'verify', identity: SECOND, changes: {} })
})

const SIGNED_ROWS: readonly (readonly [string, MemoryDevice, UploadSetup, string | undefined])[] = [
  ['unsigned keys are accepted by default', published(), { keys: 'A=a' }, undefined],
  [
    'unsigned keys are refused if the operator demands signatures',
    published(),
    { keys: 'A=a', checked: [FIRST], policy: { verifySignatures: true } },
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'unsigned keys are refused after a change of identity',
    published({ identityChanged: true }),
    { keys: 'A=a', checked: [FIRST] },
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'unsigned fallback keys are refused after a change of identity',
    published({ identityChanged: true }),
    { fallbacks: 'F=f', checked: [FIRST] },
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'unsigned keys are refused with a change of identity',
    published(),
    { identity: SECOND, keys: 'A=a', checked: [SECOND] },
    '400 M_INVALID_SIGNATURE',
  ],
  ['a request without keys needs no signatures', published({ identityChanged: true }), {}, undefined],
]

for (const [name, device, upload, refusal] of SIGNED_ROWS)
  test(name, () => assert.equal(refusalOf(decideUploadOn(device, upload)), refusal))

test('signatures are checked against the identity that the device has, if the request has none', () => {
  const device = published({ identityChanged: true })
  assert.deepEqual(decideUploadOn(device, { keys: 'A=a' }), {
    kind: 'verify',
    identity: FIRST,
    changes: {},
  })
})

const ORDER_ROWS: readonly (readonly [string, () => MemoryDevice, UploadSetup, string])[] = [
  [
    'a refused identity comes before signatures',
    () => published({ formerIdentities: [SECOND], identityChanged: true }),
    { identity: SECOND, keys: 'A=a', checked: [SECOND] },
    '400 M_INVALID_PARAM',
  ],
  [
    'signatures come before the number of algorithms',
    () => published({ identityChanged: true, log: 'x/A=a' }),
    { keys: 'y/A=a', checked: [FIRST], policy: { algorithmsPerDevice: 1 } },
    '400 M_INVALID_SIGNATURE',
  ],
  [
    'the number of algorithms, of fallback keys too, comes before conflicts',
    () => deviceWith({ log: 'x/A=a' }),
    { keys: 'x/A=b', fallbacks: 'y/F=f', policy: { algorithmsPerDevice: 1 } },
    '400 M_INVALID_PARAM',
  ],
  [
    'conflicts come before the daily budget',
    () => deviceWith({ log: 'A=a', counts: countsOf({ device_keys: 5 }, NOW) }),
    { keys: 'A=b B=c', policy: { onConflict: 'reject', keysPerDeviceAndDay: 5 } },
    '400 M_DUPLICATE_ONE_TIME_KEY',
  ],
  [
    'the daily budget comes last',
    () => deviceWith({ log: 'A=a', counts: countsOf({ device_keys: 5 }, NOW) }),
    { keys: 'B=b', policy: { keysPerDeviceAndDay: 5 } },
    '429 M_LIMIT_EXCEEDED',
  ],
]

for (const [name, make, upload, refusal] of ORDER_ROWS) {
  test(`${name}, and nothing is stored`, () => {
    const device = make()
    const decision = decideUploadOn(device, upload)
    assert.equal(refusalOf(decision), refusal)
    assert.deepEqual(decision.changes, {})
  })
}

/** Keys of the device, and of its user. */
function usedBy({ counts }: MemoryDevice): number[] {
  return [counts.device_keys.used, counts.user_keys.used]
}

test('the daily budgets count stored keys, fallback keys and a change of identity', () => {
  for (const [upload, stored] of [
    [{ keys: 'A=a B=b' }, 2],
    [{ keys: 'A=a', fallbacks: 'F=f x/F=f' }, 3],
    [{ identity: SECOND }, 1],
    [{ keys: 'K=k' }, 0],
    [{ keys: 'A=a B=a' }, 1],
    [{ fallbacks: 'G=g' }, 0],
  ] as const) {
    const device = published({ log: 'K=k', fallbacks: 'G=g', counts: countsOf({}, NOW) })
    save(device, decideUploadOn(device, upload))
    assert.deepEqual(usedBy(device), [stored, stored], JSON.stringify(upload))
  }
})

test('keys that are evicted at once count towards the daily budget', () => {
  const device = deviceWith({ counts: countsOf({}, NOW) })
  save(device, decideUploadOn(device, { keys: 'A=a B=b C=c', policy: { keysPerPool: 1 } }))
  assert.deepEqual(usedBy(device), [3, 3])
})

test('the bytes of a user are those of the names and texts of stored keys', () => {
  const device = published({ log: 'K=k', counts: countsOf({ user_bytes: 100 }, NOW) })
  save(device, decideUploadOn(device, { keys: 'ÄÖ=a K=k', fallbacks: 'F=ff' }))
  assert.equal(device.counts.user_bytes.used, 100 + 4 + '{"key":"a"}'.length + 1 + '{"key":"ff"}'.length)
})

const BUDGET_ROWS = [
  [
    'keys of the device',
    { device_keys: 5 },
    { keysPerDeviceAndDay: 5 },
    /^This device may store 5 keys within/,
  ],
  [
    'keys of the user',
    { user_keys: 5 },
    { keysPerUserAndDay: 5 },
    /^The devices of this account may store 5 keys/,
  ],
  [
    'bytes of the user',
    { user_bytes: 5 },
    { keyBytesPerUserAndDay: 16 },
    /may store 16 bytes of keys within 24/,
  ],
] as const

for (const [name, used, policy, text] of BUDGET_ROWS) {
  test(`an upload over the daily ${name} is refused, and stores nothing`, () => {
    const device = deviceWith({ log: 'A=a', counts: countsOf(used, NOW) })
    const decision = decideUploadOn(device, { keys: 'B=b', policy })
    assert.equal(refusalOf(decision), '429 M_LIMIT_EXCEEDED')
    assert.ok(decision.kind === 'refusal' && text.test(decision.refusal.message))
    assert.ok(decision.refusal instanceof BudgetError && decision.refusal.budget in used)
    assert.deepEqual(decision.changes, {})
  })
}

test('a device is healed as often as its budget of a day allows, and then refused as before', () => {
  const policy = { ...HEAL, healsPerDeviceAndDay: 2 }
  const device = deviceWith({ log: 'A=a0' })
  const results: unknown[] = []
  let now = NOW
  const upload = (material: string): ReturnType<typeof decideUploadOn> =>
    decideUploadOn(device, { keys: `A=${material}`, policy, now: (now += 2_000) })
  for (const material of ['a1', 'a2', 'a3']) {
    for (const _ of ['first', 'second']) {
      const decision = upload(material)
      results.push(refusalOf(decision) ?? 'healed')
      saveChanges(device, decision.changes)
    }
  }
  const refused = '400 M_DUPLICATE_ONE_TIME_KEY'
  assert.deepEqual(results, [refused, 'healed', refused, 'healed', refused, refused])
  const third = upload('a3')
  assert.ok(third.kind === 'refusal' && third.refusal instanceof BudgetError)
  assert.deepEqual([third.refusal.budget, third.changes], ['heals', {}])
  assert.match(
    third.refusal.message,
    /^One time key signed_curve25519:A already exists\. Old key: .*; new key: /,
  )
  assert.equal(logOf(device), 'A=a0:purged A=a1:purged A=a2')
  now = NOW + 24 * 60 * 60 * 1000 + 4_000
  saveChanges(device, upload('a3').changes)
  assert.equal(refusalOf(upload('a3')), undefined, 'a day later')
})

const CONFLICT_ROWS = [
  ['under reject a second try is refused', 'reject', 2_000, 'refused', undefined],
  ['under heal the first try is refused and remembered', 'heal', undefined, 'refused', 'remembered'],
  ['under heal a repeat within 2 s is refused and not remembered again', 'heal', 1_999, 'refused', undefined],
  ['under heal a try after 2 s is healed and forgotten', 'heal', 2_000, 'healed', 'forget'],
  ['under heal a try after an hour is a first one', 'heal', 3_600_001, 'refused', 'remembered'],
] as const

for (const [name, onConflict, age, result, memory] of CONFLICT_ROWS) {
  test(name, () => {
    const upload = { keys: 'A=b', policy: { onConflict } }
    const refused = age === undefined ? undefined : tryOf(keys(upload.keys), NOW - age)
    const device = deviceWith({ log: 'A=a', refused })
    const decision = decideUploadOn(device, upload)
    assert.equal(refusalOf(decision), result === 'refused' ? '400 M_DUPLICATE_ONE_TIME_KEY' : undefined)
    const remembered = memory === 'remembered' ? tryOf(keys(upload.keys), NOW) : memory
    assert.deepEqual(decision.changes.refused, remembered)
    if (result === 'refused') assert.equal(decision.changes.pools, undefined)
  })
}

test('a heal over the daily budget is refused, and the first try stays remembered', () => {
  const refused = tryOf(keys('A=b'), NOW - 2_000)
  const device = deviceWith({ log: 'A=a', refused, counts: countsOf({ device_keys: 5 }, NOW) })
  const decision = decideUploadOn(device, { keys: 'A=b', policy: { ...HEAL, keysPerDeviceAndDay: 5 } })
  assert.equal(refusalOf(decision), '429 M_LIMIT_EXCEEDED')
  assert.deepEqual(decision.changes, {})
})
