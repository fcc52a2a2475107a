/** The outcome table of key-pool.md ("Upload"), row by row. */
import { key, keys, NOTHING_WANTED, outcomesOf, poolWith } from '@latchkey/testing/pool-facts.ts'
import { SIGNED_CURVE25519 } from '@latchkey/protocol'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decideOutcomes, ID_REUSE_LOOKBACK, type PoolMemory } from './outcomes.ts'

type Row = {
  readonly name: string
  readonly log: string
  readonly upload: string
  readonly outcomes: string
  /** IDs to append, in this order. */
  readonly store: string
  readonly conflicts?: string
}

const ROWS: readonly Row[] = [
  {
    name: 'new material under a new ID is stored',
    log: 'A=a',
    upload: 'B=b',
    outcomes: 'B stored',
    store: 'B',
  },
  ...(['withdrawn', 'evicted', 'purged'] as const).map((state) => ({
    name: `new material under an ID that only ${state} keys had is stored`,
    log: `A=a:${state}`,
    upload: 'A=b',
    outcomes: 'A stored',
    store: 'A',
  })),
  {
    name: 'new material under the ID of an issued key is stored and reported as id_reused',
    log: 'A=a:issued B=b',
    upload: 'A=c',
    outcomes: 'A id_reused',
    store: 'A',
  },
  {
    name: 'available material under the same ID is already stored',
    log: 'A=a',
    upload: 'A=a',
    outcomes: 'A already_stored',
    store: '',
  },
  {
    name: 'available material under another ID is already stored, under the ID that it has',
    log: 'A=a',
    upload: 'B=a',
    outcomes: 'B already_stored as A',
    store: '',
  },
  {
    name: 'the same material twice in a request is stored once, under the first ID in code-point order',
    log: '',
    upload: 'B=a A=a',
    outcomes: 'A stored, B already_stored as A',
    store: 'A',
  },
  {
    name: 'issued material is not stored',
    log: 'A=a:issued',
    upload: 'A=a',
    outcomes: 'A already_issued',
    store: '',
  },
  {
    name: 'issued material is not stored under another ID',
    log: 'A=a:issued',
    upload: 'B=a',
    outcomes: 'B already_issued',
    store: '',
  },
  {
    name: 'evicted material is not stored',
    log: 'A=a:evicted',
    upload: 'B=a',
    outcomes: 'B already_removed',
    store: '',
  },
  {
    name: 'purged material is not stored',
    log: 'A=a:purged',
    upload: 'A=a',
    outcomes: 'A already_removed',
    store: '',
  },
  {
    name: 'withdrawn material is stored again',
    log: 'A=a:withdrawn',
    upload: 'A=a',
    outcomes: 'A stored',
    store: 'A',
  },
  {
    name: 'an ID that is available with other material is a conflict',
    log: 'A=a',
    upload: 'A=b B=b2',
    outcomes: 'B stored',
    store: 'B',
    conflicts: 'A',
  },
  {
    name: 'every conflict is reported, in code-point order',
    log: 'A=a B=b',
    upload: 'B=b2 A=a2',
    outcomes: '',
    store: '',
    conflicts: 'A B',
  },
  {
    name: 'material comes before ID: issued material under an available ID does not conflict',
    log: 'A=a:issued B=b',
    upload: 'B=a',
    outcomes: 'B already_issued',
    store: '',
  },
  {
    name: 'material comes before ID: purged material under an available ID does not conflict',
    log: 'A=a:purged B=b',
    upload: 'B=a',
    outcomes: 'B already_removed',
    store: '',
  },
  {
    name: 'material comes before ID: material of this request under an available ID does not conflict',
    log: 'B=b',
    upload: 'A=a B=a',
    outcomes: 'A stored, B already_stored as A',
    store: 'A',
  },
  {
    name: 'a key that conflicts does not count as stored earlier in the request',
    log: 'A=a',
    upload: 'A=b B=b',
    outcomes: 'B stored',
    store: 'B',
    conflicts: 'A',
  },
  {
    name: 'keys enter the log by key ID in code-point order',
    log: '',
    upload: 'a=1 Z=2 \u{1F511}=3 \uFFFD=4 0=5',
    outcomes: '0 stored, Z stored, a stored, \uFFFD stored, \u{1F511} stored',
    store: '0 Z a \uFFFD \u{1F511}',
  },
]

for (const { name, log, upload, outcomes, store, conflicts = '' } of ROWS) {
  test(name, () => {
    const oneTimeKeys = keys(upload)
    const memory = log === '' ? EMPTY : poolWith({ log }, { ...NOTHING_WANTED, oneTimeKeys })
    const decision = decideOutcomes(oneTimeKeys, memory, () => false)
    assert.equal(outcomesOf({ ...decision, fallbackOutcomes: new Map(), evicted: [] }), outcomes)
    assert.equal(decision.store.map(({ keyId }) => keyId).join(' '), store)
    assert.equal(decision.conflicts.map(({ uploaded }) => uploaded.keyId).join(' '), conflicts)
  })
}

const EMPTY: PoolMemory = {
  byMaterial: () => undefined,
  availableById: () => undefined,
  addedSinceIssued: () => undefined,
}

test('a conflict has the uploaded and the stored key', () => {
  const [conflict] = decideOutcomes(
    [key('A=b')],
    poolWith({ log: 'A=a' }, wanting('A=b')),
    () => false,
  ).conflicts
  assert.deepEqual([conflict?.uploaded.material, conflict?.stored.material], ['b', 'a'])
  assert.equal(conflict?.uploaded.algorithm, SIGNED_CURVE25519)
})

test('an ID is reused if fewer than 5 000 keys were added after the issued key that had it', () => {
  assert.equal(ID_REUSE_LOOKBACK, 5_000)
  for (const [added, outcome] of [
    [0, 'A id_reused'],
    [4_999, 'A id_reused'],
    [5_000, 'A stored'],
    [undefined, 'A stored'],
  ] as const) {
    const decision = decideOutcomes([key('A=b')], { ...EMPTY, addedSinceIssued: () => added }, () => false)
    assert.equal(
      outcomesOf({ ...decision, fallbackOutcomes: new Map(), evicted: [] }),
      outcome,
      `${added} keys added`,
    )
  }
})

function wanting(upload: string): { readonly oneTimeKeys: ReturnType<typeof keys> } {
  return { oneTimeKeys: keys(upload) }
}
