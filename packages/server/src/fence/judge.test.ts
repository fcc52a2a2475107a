import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Counted, judge, type Mark, outlivesFallbackKeys, POSITION_JUMP } from './judge.ts'

type Row = {
  readonly name: string
  /** By lane: the last acknowledged write and its epoch. */
  readonly marks: readonly [lane: number, n: number, epoch: string][]
  readonly rows: readonly [lane: number, n: number][]
  readonly former?: readonly string[]
  readonly kind: string
  readonly lane?: number
}

const EPOCH = 'now'

const ROWS: readonly Row[] = [
  { name: 'a process without acknowledged writes', marks: [], rows: [], kind: 'holds' },
  { name: 'a row at its mark', marks: [[0, 5, EPOCH]], rows: [[0, 5]], kind: 'holds' },
  {
    name: 'a row ahead of its mark, as a crash leaves it',
    marks: [[0, 5, EPOCH]],
    rows: [[0, 6]],
    kind: 'holds',
  },
  { name: 'a row behind its mark', marks: [[0, 5, EPOCH]], rows: [[0, 4]], kind: 'behind', lane: 0 },
  { name: 'a lane without a row', marks: [[3, 1, EPOCH]], rows: [], kind: 'behind', lane: 3 },
  {
    name: 'one lane of several behind',
    marks: [
      [0, 5, EPOCH],
      [1, 7, EPOCH],
    ],
    rows: [
      [0, 5],
      [1, 6],
    ],
    kind: 'behind',
    lane: 1,
  },
  {
    name: 'a row behind a mark of an epoch that has ended since',
    marks: [[0, 5, 'old']],
    rows: [[0, 4]],
    former: ['old'],
    kind: 'fenced',
  },
  {
    name: 'a row that has a mark of an epoch that has ended since',
    marks: [[0, 5, 'old']],
    rows: [[0, 5]],
    former: ['old'],
    kind: 'holds',
  },
  {
    name: 'a mark of an epoch that the database never had, however far it counts',
    marks: [[0, 5, 'unknown']],
    rows: [[0, 99]],
    former: ['old'],
    kind: 'behind',
    lane: 0,
  },
  {
    name: 'a lane behind after a lane that was fenced',
    marks: [
      [0, 5, 'old'],
      [1, 7, EPOCH],
    ],
    rows: [
      [0, 4],
      [1, 6],
    ],
    former: ['old'],
    kind: 'behind',
    lane: 1,
  },
  {
    name: 'a mark of the present epoch, although an epoch of this name ended before',
    marks: [[0, 5, EPOCH]],
    rows: [[0, 4]],
    former: [EPOCH],
    kind: 'behind',
    lane: 0,
  },
]

for (const { name, marks, rows, former = [], kind, lane } of ROWS) {
  test(`${name}: ${kind}`, () => {
    const acknowledged = new Map(marks.map(([at, n, epoch]): [number, Mark] => [at, { n, epoch }]))
    const counted: Counted = { epoch: EPOCH, rows: new Map(rows), former: new Set(former) }
    const judgement = judge(acknowledged, counted)
    assert.equal(judgement.kind, kind)
    if (judgement.kind !== 'behind') return
    assert.equal(judgement.lane, lane)
    assert.equal(judgement.acknowledged, acknowledged.get(judgement.lane)?.n)
    assert.equal(judgement.found, counted.rows.get(judgement.lane) ?? 0)
  })
}

const DAY_MS = 24 * 60 * 60 * 1000
const NOW = 1_700_000_000_000

const MINUTE_MS = 60_000
const YEAR_2099 = Date.UTC(2099, 0)

for (const [name, lastWriteTs, newestTs, purged] of [
  ['nothing was ever written', undefined, undefined, true],
  ['at most six days are lost', NOW - 6 * DAY_MS, undefined, false],
  ['more than six days are lost', NOW - 6 * DAY_MS - 1, NOW, true],
  ['the last write was a moment ago', NOW, NOW, false],
  ['the clock is a few seconds behind the last write', NOW + 5_000, NOW + 5_000, false],
  ['the clock is a minute behind the last write', NOW + MINUTE_MS, NOW + MINUTE_MS, false],
  ['the clock is more than a minute behind the last write', NOW + MINUTE_MS + 1, undefined, true],
  [
    'the clock is behind a later write, though not behind the last certain one',
    NOW,
    NOW + MINUTE_MS + 1,
    true,
  ],
  ['a write carried the year 2099 once', NOW, YEAR_2099, true],
  ['the last write carried the year 1970', 0, 0, true],
] as const) {
  test(`fallback keys are ${purged ? 'purged' : 'kept'} if ${name}`, () => {
    assert.equal(outlivesFallbackKeys({ lastWriteTs, newestTs, now: NOW }), purged)
  })
}

test('millions of raises keep positions exact', () => {
  assert.equal(POSITION_JUMP, 1e9)
  assert.ok(Number.isSafeInteger(9_000_000 * POSITION_JUMP))
})
