/** The soak's checker, on histories written by hand: a sound one passes, and each rule's breach is named as that rule's. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { checkHistory, type Exchange, type Rule } from '../bench/lib/history.ts'

const CURVE = 'signed_curve25519'
const ALICE = { user: '@alice:h', device: 'A', token: 'ta' }
const BOB = { user: '@bob:h', device: 'B', token: 'tb' }
type Who = typeof ALICE

type Times = { readonly begin?: number; readonly end?: number }

/** Writes a history line by line: each request begins after the answer of the last one, unless its times are given. */
class Book {
  readonly exchanges: Exchange[] = []
  #clock = 0

  add(
    method: string,
    path: string,
    token: string | undefined,
    body: unknown,
    answer: unknown,
    { begin, end, status = 200 }: Times & { readonly status?: number | undefined } = {},
  ): this {
    const from = begin ?? this.#clock + 1
    const to = end ?? Math.max(from + 1, this.#clock + 2)
    this.#clock = Math.max(this.#clock, to)
    this.exchanges.push({
      n: this.exchanges.length,
      begin: from,
      method,
      path: `/_matrix/client/v3${path}`,
      ...(token !== undefined && { token }),
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(answer !== undefined && { end: to, status, answer: JSON.stringify(answer) }),
    })
    return this
  }

  login({ user, device, token }: Who, times?: Times): this {
    const body = { identifier: { user }, device_id: device }
    const answer = { user_id: user, device_id: device, access_token: token }
    return this.add('POST', '/login', undefined, body, answer, times)
  }

  logout({ token }: Who): this {
    return this.add('POST', '/logout', token, {}, {})
  }

  upload(
    who: Who,
    ids: readonly string[],
    times: Times & { readonly count?: number; readonly outcome?: string; readonly version?: number } = {},
  ): this {
    const answer = {
      one_time_key_counts: { [CURVE]: times.count ?? ids.length },
      'dev.latchkey.outcomes': Object.fromEntries(
        ids.map((id) => [`${CURVE}:${id}`, times.outcome ?? 'stored']),
      ),
      'dev.latchkey.key_pool': { epoch: 'e', version: times.version ?? 1, generation: 0 },
    }
    return this.add('POST', '/keys/upload', who.token, { one_time_keys: keys(ids) }, answer, times)
  }

  uploadFallback(who: Who, id: string, outcome = 'stored', times?: Times): this {
    const answer = { 'dev.latchkey.fallback_outcomes': { [`${CURVE}:${id}`]: outcome }, ...standing(0) }
    return this.add('POST', '/keys/upload', who.token, { fallback_keys: keys([id]) }, answer, times)
  }

  claim(from: Who, id: string | undefined, times?: Times): this {
    const body = { one_time_keys: { [from.user]: { [from.device]: CURVE } } }
    const given = id === undefined ? {} : { [from.user]: { [from.device]: keys([id]) } }
    return this.add('POST', '/keys/claim', BOB.token, body, { one_time_keys: given }, times)
  }

  reset(
    who: Who,
    body: object,
    withdrawn: readonly string[],
    times: Times & { readonly count?: number } = {},
  ): this {
    const answer = {
      device_one_time_keys_count: { [CURVE]: times.count ?? 0 },
      'dev.latchkey.withdrawn': withdrawn.map((id) => `${CURVE}:${id}`),
      'dev.latchkey.outcomes': {},
      'dev.latchkey.key_pool': { epoch: 'e', version: 1, generation: 0 },
    }
    return this.add('POST', '/keys/reset', who.token, body, answer, times)
  }

  pool(who: Who, available: readonly string[], issued: readonly string[]): this {
    const list = (ids: readonly string[]): object[] => ids.map((id) => ({ key_id: id, key_hash: hashOf(id) }))
    const pool = { count: available.length, available: list(available), issued: list(issued) }
    const answer = { epoch: 'e', version: 1, generation: 0, algorithms: { [CURVE]: pool } }
    return this.add('GET', '/keys/pool', who.token, undefined, answer)
  }

  send(to: Who, id: string, times?: Times): this {
    const body = { messages: { [to.user]: { [to.device]: { id } } } }
    return this.add('PUT', `/sendToDevice/m.soak/${id}`, BOB.token, body, {}, times)
  }

  sync(who: Who, ids: readonly string[], count = 0): this {
    const events = ids.map((id) => ({ content: { id } }))
    const answer = { next_batch: 's', to_device: { events }, ...standing(count) }
    return this.add('GET', '/sync?timeout=0', who.token, undefined, answer)
  }

  query(of: Who, identity: string | undefined): this {
    const shown =
      identity === undefined ? {} : { [of.device]: { keys: { [`ed25519:${of.device}`]: identity } } }
    const answer = { device_keys: { [of.user]: shown } }
    return this.add('POST', '/keys/query', BOB.token, { device_keys: { [of.user]: [] } }, answer)
  }

  publish(who: Who, identity: string): this {
    const body = { device_keys: { keys: { [`ed25519:${who.device}`]: identity } } }
    return this.add('POST', '/keys/upload', who.token, body, standing(0))
  }
}

function standing(count: number): object {
  return {
    one_time_key_counts: { [CURVE]: count },
    device_one_time_keys_count: { [CURVE]: count },
    'dev.latchkey.key_pool': { epoch: 'e', version: 1, generation: 0 },
  }
}

function keys(ids: readonly string[]): Record<string, object> {
  return Object.fromEntries(ids.map((id) => [`${CURVE}:${id}`, { key: `key of ${id}` }]))
}

function hashOf(id: string): string {
  return createHash('sha256').update(`key of ${id}`).digest('base64url')
}

function begun(): Book {
  return new Book().login(ALICE).login(BOB)
}

function rulesBroken(book: Book): Rule[] {
  return [...new Set(checkHistory(book.exchanges).violations.map(({ rule }) => rule))]
}

test('a sound history passes: claims at once, a key offered again, a reset, a new login, requests without answers', () => {
  const book = begun()
    .upload(ALICE, ['1', '2', '3', '4'])
    .claim(ALICE, '2', { begin: 100, end: 110 })
    .claim(ALICE, '1', { begin: 101, end: 109 })
    .upload(ALICE, ['1'], { outcome: 'already_issued', count: 2 })
    .upload(ALICE, ['3'], { outcome: 'already_stored', count: 2 })
    .reset(ALICE, { key_ids: [`${CURVE}:3`] }, ['3'], { count: 1 })
    .upload(ALICE, ['3'], { count: 2 })
    .pool(ALICE, ['4', '3'], ['2', '1'])
    .add(
      'POST',
      '/keys/claim',
      BOB.token,
      { one_time_keys: { [ALICE.user]: { [ALICE.device]: CURVE } } },
      undefined,
    )
    .sync(ALICE, [], 1)
    .pool(ALICE, ['3'], ['4', '2', '1'])
    .send(ALICE, 'm1')
    .sync(ALICE, ['m1'], 1)
    .logout(ALICE)
    .login({ ...ALICE, token: 'ta2' })
    .upload({ ...ALICE, token: 'ta2' }, ['3'], { outcome: 'already_removed', count: 0 })
    .uploadFallback({ ...ALICE, token: 'ta2' }, 'F')
    .claim(ALICE, 'F')
  assert.deepEqual(checkHistory(book.exchanges).violations, [])
})

test('what a request without an answer may have done is allowed, and what it cannot have done is not', () => {
  const lost = (): Book =>
    begun().add('POST', '/keys/upload', ALICE.token, { one_time_keys: keys(['1', '2']) }, undefined)
  assert.deepEqual(rulesBroken(lost().claim(ALICE, '1').sync(ALICE, [], 1)), [])
  assert.deepEqual(rulesBroken(lost().claim(ALICE, undefined)), [])
  assert.deepEqual(rulesBroken(lost().claim(ALICE, '1').claim(ALICE, '1')), ['issued once'])
  assert.deepEqual(
    rulesBroken(
      lost()
        .logout(ALICE)
        .login({ ...ALICE, token: 'x' })
        .claim(ALICE, '1'),
    ),
    ['removed'],
  )
})

const breaches: readonly (readonly [Rule, string, Book])[] = [
  ['answers', 'an answer of 500', begun().add('POST', '/keys/upload', ALICE.token, {}, {}, { status: 500 })],
  [
    'session',
    'a refusal without a logout',
    begun().add('GET', '/sync', ALICE.token, undefined, {}, { status: 401 }),
  ],
  ['session', 'an upload after the logout', begun().logout(ALICE).upload(ALICE, [], { count: 0 })],
  ['uploaded', 'a key from nowhere', begun().upload(ALICE, ['1']).claim(ALICE, '2')],
  [
    'uploaded',
    'a key issued before it was sent',
    begun().claim(ALICE, '1').upload(ALICE, ['1'], { count: 1 }),
  ],
  ['uploaded', "another device's key", begun().upload(BOB, ['1']).claim(ALICE, '1')],
  ['issued once', 'a key issued twice', begun().upload(ALICE, ['1']).claim(ALICE, '1').claim(ALICE, '1')],
  [
    'issued once',
    'a key issued to two claims at the same time',
    begun()
      .upload(ALICE, ['1'])
      .claim(ALICE, '1', { begin: 50, end: 60 })
      .claim(ALICE, '1', { begin: 51, end: 59 }),
  ],
  [
    'stored once',
    'an issued key stored again',
    begun().upload(ALICE, ['1']).claim(ALICE, '1').upload(ALICE, ['1']),
  ],
  [
    'stored once',
    'a key of a session that ended stored again',
    begun()
      .upload(ALICE, ['1'])
      .logout(ALICE)
      .login({ ...ALICE, token: 'x' })
      .upload({ ...ALICE, token: 'x' }, ['1']),
  ],
  [
    'removed',
    'a withdrawn key issued',
    begun().upload(ALICE, ['1']).reset(ALICE, { all: true }, ['1']).claim(ALICE, '1'),
  ],
  [
    'removed',
    'a key issued after its device went',
    begun().upload(ALICE, ['1']).logout(ALICE).claim(ALICE, '1'),
  ],
  [
    'outcome',
    'a reset of all that leaves a key',
    begun().upload(ALICE, ['1']).reset(ALICE, { all: true }, []).sync(ALICE, [], 0),
  ],
  [
    'outcome',
    'an available key called issued',
    begun().upload(ALICE, ['1']).upload(ALICE, ['1'], { outcome: 'already_issued' }),
  ],
  ['visible', 'an acknowledged key that is lost', begun().upload(ALICE, ['1', '2']).pool(ALICE, ['1'], [])],
  [
    'visible',
    'an issued key that is available',
    begun().upload(ALICE, ['1']).claim(ALICE, '1').pool(ALICE, ['1'], []),
  ],
  ['visible', 'a key issued to nobody', begun().upload(ALICE, ['1']).pool(ALICE, [], ['1'])],
  ['visible', 'a key that nobody uploaded', begun().upload(ALICE, ['1']).pool(ALICE, ['1', '2'], [])],
  [
    'order',
    'a later upload first',
    begun().upload(ALICE, ['2']).upload(ALICE, ['1'], { count: 2 }).claim(ALICE, '1').claim(ALICE, '2'),
  ],
  [
    'order',
    'the higher key ID of an upload first',
    begun().upload(ALICE, ['1', '2']).claim(ALICE, '2').claim(ALICE, '1'),
  ],
  [
    'order',
    'a key passed over for good',
    begun()
      .upload(ALICE, ['2'])
      .upload(ALICE, ['1'], { count: 2 })
      .claim(ALICE, '1')
      .pool(ALICE, ['2'], ['1']),
  ],
  ['false miss', 'nothing while a key is there', begun().upload(ALICE, ['1']).claim(ALICE, undefined)],
  [
    'false miss',
    'the fallback key while a key is there',
    begun().uploadFallback(ALICE, 'F').upload(ALICE, ['1']).claim(ALICE, 'F'),
  ],
  [
    'false miss',
    'nothing while at each moment another key is there',
    begun()
      .upload(ALICE, ['1'], { begin: 10, end: 11 })
      .claim(ALICE, undefined, { begin: 20, end: 90 })
      .upload(ALICE, ['2'], { begin: 30, end: 31, count: 2 })
      .claim(ALICE, '1', { begin: 40, end: 41 })
      .pool(ALICE, ['2'], ['1']),
  ],
  [
    'fallback',
    'nothing while there is a fallback key',
    begun().uploadFallback(ALICE, 'F').claim(ALICE, undefined),
  ],
  [
    'fallback',
    'a replaced fallback key',
    begun().uploadFallback(ALICE, 'F').uploadFallback(ALICE, 'G').claim(ALICE, 'F'),
  ],
  [
    'fallback',
    'a fallback key after the logout',
    begun().uploadFallback(ALICE, 'F').logout(ALICE).claim(ALICE, 'F'),
  ],
  ['count', 'too many', begun().upload(ALICE, ['1']).sync(ALICE, [], 2)],
  [
    'count',
    'a claim that was not noticed',
    begun().upload(ALICE, ['1', '2']).claim(ALICE, '1').sync(ALICE, [], 2),
  ],
  ['count', 'an upload that does not count itself', begun().upload(ALICE, ['1'], { count: 0 })],
  [
    'count',
    'the digest of other keys',
    begun()
      .add('GET', '/sync', ALICE.token, undefined, {
        ...standing(0),
        to_device: { events: [] },
        'dev.latchkey.key_pool': { epoch: 'e', version: 1, generation: 0, digest: { [CURVE]: 'AAAA' } },
      })
      .upload(ALICE, ['1']),
  ],
  [
    'version',
    'a version that goes back',
    begun().upload(ALICE, ['1'], { version: 2 }).upload(ALICE, ['2'], { count: 2, version: 1 }),
  ],
  [
    'replay',
    'another answer for the same request ID',
    begun()
      .reset(ALICE, { all: true, 'dev.latchkey.request_id': 'r' }, [])
      .reset(ALICE, { all: true, 'dev.latchkey.request_id': 'r' }, [], { count: 1 }),
  ],
  ['delivered', 'a message that is lost', begun().send(ALICE, 'm').sync(ALICE, [])],
  ['delivered', 'a message twice', begun().send(ALICE, 'm').sync(ALICE, ['m']).sync(ALICE, ['m'])],
  ['delivered', 'a message from nowhere', begun().sync(ALICE, ['m'])],
  [
    'delivered',
    'a message to the session before',
    begun()
      .send(ALICE, 'm')
      .logout(ALICE)
      .login({ ...ALICE, token: 'x' })
      .sync({ ...ALICE, token: 'x' }, ['m']),
  ],
  [
    'message order',
    'the later message first',
    begun().send(ALICE, 'm1').send(ALICE, 'm2').sync(ALICE, ['m2', 'm1']),
  ],
  ['query', 'device keys that are not shown', begun().publish(ALICE, 'I').query(ALICE, undefined)],
  [
    'query',
    'device keys of a session that ended',
    begun().publish(ALICE, 'I').logout(ALICE).query(ALICE, 'I'),
  ],
]

for (const [rule, what, book] of breaches) {
  test(`${what} is refused by the rule "${rule}", and by no other`, () => {
    assert.deepEqual(rulesBroken(book), [rule])
  })
}

test('a violation names the requests that show it, and no more than those', () => {
  const book = begun().upload(ALICE, ['1', '2']).claim(ALICE, '1').sync(ALICE, [], 1).claim(ALICE, '1')
  const [first] = checkHistory(book.exchanges).violations
  assert.deepEqual(first?.requests, [2, 3, 5])
})
