/** Short histories, each of which the two stores once answered differently. */
import type { PoolPolicy } from '../../../src/pool/policy.ts'
import type { DifferenceName } from './known-differences.ts'
import type { KeyPick, Step } from './steps.ts'

export type DirectedHistory = {
  readonly name: string
  readonly shows: DifferenceName
  readonly policy?: Partial<PoolPolicy>
  readonly steps: readonly Step[]
}

const ALICE = { user: 0, device: 'A' }
const BOB = { user: 1, device: 'A' }
const SIGNED = 'signed_curve25519'
const PLAIN = 'curve25519'
const DAY_MS = 86_400_000

export const DIRECTED: readonly DirectedHistory[] = [
  {
    name: 'an upload, a fallback key, a claim and a reset each move the version alike',
    shows: 'version',
    steps: [
      upload([key('a', 1), key('b', 2), key('c', 3)]),
      upload([], [key('f', 4)]),
      claim(),
      upload([key('d', 5), key('e', 6, PLAIN)]),
      { do: 'reset', by: ALICE, all: true, names: [], keys: [key('g', 7)], fallbacks: [] },
      upload([]),
    ],
  },
  {
    name: 'removing a device, and a changed identity, move the version alike',
    shows: 'version',
    steps: [
      { do: 'upload', by: ALICE, identity: 0, keys: [key('a', 1), key('b', 2, PLAIN)], fallbacks: [] },
      { do: 'upload', by: ALICE, identity: 1, keys: [key('c', 3)], fallbacks: [] },
      ...removedAndBack(),
      pool(),
    ],
  },
  {
    name: 'a healed conflict moves the version alike',
    shows: 'version',
    policy: { onConflict: 'heal' },
    steps: [upload([key('a', 1)]), upload([key('a', 2)]), wait(2_500), upload([key('a', 2)])],
  },
  {
    name: 'of a conflict and one algorithm too many the same one is the answer',
    shows: 'order-of-checks',
    steps: [
      upload([key('a', 1), key('a', 2, PLAIN), key('a', 3, 'third')]),
      upload([key('a', 4)], [key('f', 5, 'fourth')]),
    ],
  },
  {
    name: 'of a conflict and an algorithm too many among one-time keys the same one is the answer',
    shows: 'order-of-checks',
    steps: [
      upload([key('a', 1), key('a', 2, PLAIN), key('a', 3, 'third')]),
      upload([key('a', 4), key('b', 5, 'fourth')]),
    ],
  },
  {
    name: 'an ID that was issued 5 000 keys ago is reused or not',
    shows: 'id_reused-lookback',
    policy: { keysPerPool: 500, keysPerDeviceAndDay: 0 },
    steps: [
      upload([key('issued', 0)]),
      claim(),
      ...Array.from({ length: 10 }, (_, batch) => upload(manyKeys(500, 500 * batch + 1))),
      upload([key('issued', 6_000)]),
    ],
  },
  {
    name: 'an ID that was issued 4 999 keys ago is reused',
    shows: 'id_reused-lookback',
    policy: { keysPerPool: 500, keysPerDeviceAndDay: 0 },
    steps: [
      upload([key('issued', 0)]),
      claim(),
      ...Array.from({ length: 9 }, (_, batch) => upload(manyKeys(500, 500 * batch + 1))),
      upload(manyKeys(499, 4_501)),
      upload([key('issued', 6_000)]),
    ],
  },
  {
    name: 'the second try of a client heals although the server was restarted after the first',
    shows: 'refusal-memory',
    policy: { onConflict: 'heal' },
    steps: [
      upload([key('a', 1)]),
      upload([key('a', 2)]),
      { do: 'restart' },
      wait(2_500),
      upload([key('a', 2)]),
    ],
  },
  {
    name: 'a second try that is refused for another reason does not forget the first',
    shows: 'refusal-after-failed-heal',
    policy: { onConflict: 'heal', keysPerDeviceAndDay: 2 },
    steps: [
      upload([key('a', 1), key('b', 2)]),
      wait(DAY_MS - 10_000),
      upload([key('a', 3)]),
      wait(2_500),
      upload([key('a', 3)]),
      wait(10_000),
      upload([key('a', 3)]),
    ],
  },
  {
    name: 'the pages of issued keys of two algorithms have the same keys',
    shows: 'issued-pages',
    steps: [
      upload([key('a', 1), key('b', 2)]),
      upload([key('c', 3, PLAIN)]),
      claim(),
      claim(),
      claim(PLAIN),
      pool(1),
      pool(2),
    ],
  },
  {
    name: 'a device that was removed and logged in again is shown the same issued keys, page by page',
    shows: 'issued-pages',
    steps: [
      upload([key('a', 1), key('b', 2), key('c', 3, PLAIN)]),
      claim(),
      claim(PLAIN),
      ...removedAndBack(),
      pool(1),
      upload([key('d', 4), key('e', 5, PLAIN)]),
      claim(),
      claim(PLAIN),
      pool(1),
      pool(),
    ],
  },
  {
    name: 'a transaction ID counts as new after a day',
    shows: 'expired-transaction',
    steps: [send(1), wait(DAY_MS + 1), send(2), send(3), { do: 'sync', by: BOB }],
  },
  {
    name: 'a transaction ID counts as new after a day, and the device logged in again meanwhile',
    shows: 'expired-transaction',
    steps: [
      send(1),
      { do: 'login', by: ALICE },
      send(2),
      wait(DAY_MS + 1),
      { do: 'login', by: ALICE },
      send(3),
      send(4),
      { do: 'sync', by: BOB },
    ],
  },
  {
    name: 'a transaction ID counts as new after a day, however many others are forgotten with it',
    shows: 'expired-transaction',
    steps: [
      ...Array.from({ length: 30 }, (_, transaction) => send(transaction, transaction)),
      wait(DAY_MS + 1),
      ...Array.from({ length: 30 }, (_, n) => send(100 + n, 29 - n)),
      ...Array.from({ length: 25 }, (): Step => ({ do: 'sync', by: BOB, since: 'last' })),
    ],
  },
]

function key(id: string, material: number, algorithm = SIGNED): KeyPick {
  return { algorithm, id, material, signer: 'current' }
}

function manyKeys(count: number, from: number): KeyPick[] {
  return Array.from({ length: count }, (_, i) => key(`k${String(from + i).padStart(5, '0')}`, from + i))
}

function upload(keys: readonly KeyPick[], fallbacks: readonly KeyPick[] = []): Step {
  return { do: 'upload', by: ALICE, keys, fallbacks }
}

function claim(algorithm = SIGNED): Step {
  return { do: 'claim', by: BOB, targets: [{ ...ALICE, algorithm }] }
}

function pool(limit = 1000): Step {
  return { do: 'pool', by: ALICE, limit }
}

function send(content: number, transaction = 0): Step {
  return { do: 'send', by: ALICE, type: 0, transaction, to: [BOB], content }
}

function wait(ms: number): Step {
  return { do: 'wait', ms }
}

function removedAndBack(): Step[] {
  return [
    { do: 'logout', by: ALICE },
    { do: 'login', by: ALICE },
  ]
}
