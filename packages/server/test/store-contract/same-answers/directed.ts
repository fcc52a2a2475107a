/** Short histories, most of which the two stores once answered differently. */
import type { PoolPolicy } from '../../../src/pool/policy.ts'
import type { DifferenceName } from './known-differences.ts'
import type { KeyPick, Step } from './steps.ts'

export type DirectedHistory = {
  readonly name: string
  /** Undefined if the stores never differed. */
  readonly shows?: DifferenceName
  readonly policy?: Partial<PoolPolicy>
  readonly steps: readonly Step[]
}

const ALICE = { user: 0, device: 'A' }
const BOB = { user: 1, device: 'A' }
const SIGNED = 'signed_curve25519'
const PLAIN = 'curve25519'
const DAY_MS = 86_400_000

const CLIENT = '/_matrix/client/v3'
const EXTENSIONS = '/_matrix/client/unstable'
/** U+0000, a lone surrogate, a character beyond the BMP, a decomposed one, a long text and others. */
const ODD_TEXTS = [
  'a\0b',
  '\uD800',
  '\u{10FFFF}',
  'e\u0301',
  "'\\%",
  '\uFEFF',
  'x'.repeat(300),
  '__proto__',
] as const
/** A number that does not fit into four bytes. */
const LONG_NUMBER = '999999999999999'

export const DIRECTED: readonly DirectedHistory[] = [
  {
    name: 'an upload, a fallback key, a claim and a reset advance the version equally',
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
    name: 'a removed device and a changed identity advance the version equally',
    shows: 'version',
    steps: [
      { do: 'upload', by: ALICE, identity: 0, keys: [key('a', 1), key('b', 2, PLAIN)], fallbacks: [] },
      { do: 'upload', by: ALICE, identity: 1, keys: [key('c', 3)], fallbacks: [] },
      ...removedAndBack(),
      pool(),
    ],
  },
  {
    name: 'a healed conflict advances the version equally',
    shows: 'version',
    policy: { onConflict: 'heal' },
    steps: [upload([key('a', 1)]), upload([key('a', 2)]), wait(2_500), upload([key('a', 2)])],
  },
  {
    name: 'a conflict plus a fallback key of one algorithm too many get the same error',
    shows: 'order-of-checks',
    steps: [
      upload([key('a', 1), key('a', 2, PLAIN), key('a', 3, 'third')]),
      upload([key('a', 4)], [key('f', 5, 'fourth')]),
    ],
  },
  {
    name: 'a conflict plus a one-time key of one algorithm too many get the same error',
    shows: 'order-of-checks',
    steps: [
      upload([key('a', 1), key('a', 2, PLAIN), key('a', 3, 'third')]),
      upload([key('a', 4), key('b', 5, 'fourth')]),
    ],
  },
  {
    name: 'an ID issued 5 000 keys ago has the same outcome',
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
    name: 'an ID issued 4 999 keys ago is reused',
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
    name: 'the second try of a client heals although the server restarted after the first',
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
    name: 'the second heal of a day is over the budget of both stores, across a restart',
    policy: { healsPerDeviceAndDay: 1 },
    steps: [
      upload([key('a', 1)]),
      ...[2, 3].flatMap((n) => [
        upload([key('a', n)]),
        wait(2_500),
        upload([key('a', n)]),
        { do: 'restart' } as const,
      ]),
      wait(2_500),
      upload([key('a', 3)]),
      pool(),
      wait(DAY_MS),
      upload([key('a', 3)]),
      wait(2_500),
      upload([key('a', 3)]),
      pool(),
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
    name: 'a device removed and logged in again gets the same issued keys, page by page',
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
    name: 'a transaction ID counts as new after a day and another login of its device',
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
    name: 'a transaction ID counts as new after a day, together with many others',
    shows: 'expired-transaction',
    steps: [
      ...Array.from({ length: 30 }, (_, transaction) => send(transaction, transaction)),
      wait(DAY_MS + 1),
      ...Array.from({ length: 30 }, (_, n) => send(100 + n, 29 - n)),
      ...Array.from({ length: 25 }, (): Step => ({ do: 'sync', by: BOB, since: 'last' })),
    ],
  },
  {
    name: 'a transaction that delivered nothing is not remembered',
    steps: [send(1), { do: 'login', by: BOB }, send(2), send(3), { do: 'sync', by: BOB }],
  },
  {
    name: 'unusual texts in paths, queries and bodies, some of which a database may refuse',
    steps: ODD_TEXTS.flatMap(requestsWith),
  },
]

/** Requests with an unusual text in every place. */
function requestsWith(text: string): Step[] {
  // Only well-formed text has an encoding for paths.
  const encoded = text.isWellFormed() ? encodeURIComponent(text) : '%ED%A0%80'
  const named = { [text]: { [text]: text } }
  return [
    request('GET', `${CLIENT}/devices/${encoded}`),
    request('PUT', `${CLIENT}/devices/${encoded}`, { display_name: text }),
    request('PUT', `${CLIENT}/devices/A`, { display_name: text }),
    request('PUT', `${CLIENT}/sendToDevice/${encoded}/${encoded}`, { messages: {} }),
    request('PUT', `${CLIENT}/sendToDevice/m.test/1`, { messages: { '@u:test.example': { [text]: {} } } }),
    request('POST', `${CLIENT}/keys/claim`, { one_time_keys: { '@u:test.example': { [text]: text } } }),
    request('POST', `${CLIENT}/keys/query`, { device_keys: { [`@${text}:test.example`]: [text] } }),
    request('POST', `${CLIENT}/keys/upload`, { one_time_keys: { [`${text}:${text}`]: { key: text } } }),
    request('POST', `${CLIENT}/keys/upload`, { fallback_keys: { [`${SIGNED}:${text}`]: { key: text } } }),
    request('POST', `${CLIENT}/keys/signatures/upload`, named),
    request('POST', `${EXTENSIONS}/org.matrix.msc4162/keys/reset`, {
      key_ids: [`${SIGNED}:${text}`],
      'dev.latchkey.request_id': text,
    }),
    request('GET', `${EXTENSIONS}/dev.latchkey/keys/pool?from=${encoded}&limit=1`),
    request('GET', `${CLIENT}/keys/changes?from=${encoded}`),
    request('GET', `${CLIENT}/sync?since=${encoded}`),
    request('PUT', `${CLIENT}/user/{user}/account_data/${encoded}`, named),
    request('GET', `${CLIENT}/user/{user}/account_data/${encoded}`),
    request('POST', `${CLIENT}/user/{user}/filter`, named),
    request('GET', `${CLIENT}/user/{user}/filter/${encoded}`),
    request('GET', `${CLIENT}/user/{user}/filter/${LONG_NUMBER}`),
    request('POST', `${CLIENT}/login`, {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: text },
      password: text,
      device_id: text,
    }),
  ]
}

function request(method: string, path: string, body?: object): Step {
  return { do: 'request', by: ALICE, method, path, ...(body && { body }) }
}

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
