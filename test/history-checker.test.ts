/** The soak's history checker on handwritten histories: a valid one passes, and each violation names its rule. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { checkHistory, type Exchange, type Rule } from '../bench/lib/history.ts'

const CURVE = 'signed_curve25519'
const ALICE = { user: '@alice:h', device: 'A', token: 'ta' }
const BOB = { user: '@bob:h', device: 'B', token: 'tb' }
type TestSession = typeof ALICE

type Times = { readonly begin?: number; readonly end?: number }

/** Builds a history: each request begins after the previous answer unless its times are given. */
class HistoryBuilder {
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

  login({ user, device, token }: TestSession, times?: Times): this {
    const body = { identifier: { user }, device_id: device }
    const answer = { user_id: user, device_id: device, access_token: token }
    return this.add('POST', '/login', undefined, body, answer, times)
  }

  logout({ token }: TestSession): this {
    return this.add('POST', '/logout', token, {}, {})
  }

  upload(
    session: TestSession,
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
    return this.add('POST', '/keys/upload', session.token, { one_time_keys: keys(ids) }, answer, times)
  }

  uploadFallback(session: TestSession, id: string, outcome = 'stored', times?: Times): this {
    const answer = { 'dev.latchkey.fallback_outcomes': { [`${CURVE}:${id}`]: outcome }, ...poolState(0) }
    return this.add('POST', '/keys/upload', session.token, { fallback_keys: keys([id]) }, answer, times)
  }

  claim(from: TestSession, id: string | undefined, times?: Times): this {
    const body = { one_time_keys: { [from.user]: { [from.device]: CURVE } } }
    const given = id === undefined ? {} : { [from.user]: { [from.device]: keys([id]) } }
    return this.add('POST', '/keys/claim', BOB.token, body, { one_time_keys: given }, times)
  }

  reset(
    session: TestSession,
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
    return this.add('POST', '/keys/reset', session.token, body, answer, times)
  }

  pool(session: TestSession, available: readonly string[], issued: readonly string[]): this {
    const list = (ids: readonly string[]): object[] => ids.map((id) => ({ key_id: id, key_hash: hashOf(id) }))
    const pool = { count: available.length, available: list(available), issued: list(issued) }
    const answer = { epoch: 'e', version: 1, generation: 0, algorithms: { [CURVE]: pool } }
    return this.add('GET', '/keys/pool', session.token, undefined, answer)
  }

  send(to: TestSession, id: string, times?: Times): this {
    const body = { messages: { [to.user]: { [to.device]: { id } } } }
    return this.add('PUT', `/sendToDevice/m.soak/${id}`, BOB.token, body, {}, times)
  }

  sync(session: TestSession, ids: readonly string[], count = 0): this {
    const events = ids.map((id) => ({ content: { id } }))
    const answer = { next_batch: 's', to_device: { events }, ...poolState(count) }
    return this.add('GET', '/sync?timeout=0', session.token, undefined, answer)
  }

  query(of: TestSession, identity: string | undefined): this {
    const shown =
      identity === undefined ? {} : { [of.device]: { keys: { [`ed25519:${of.device}`]: identity } } }
    const answer = { device_keys: { [of.user]: shown } }
    return this.add('POST', '/keys/query', BOB.token, { device_keys: { [of.user]: [] } }, answer)
  }

  publish(session: TestSession, identity: string): this {
    const body = { device_keys: { keys: { [`ed25519:${session.device}`]: identity } } }
    return this.add('POST', '/keys/upload', session.token, body, poolState(0))
  }
}

function poolState(count: number): object {
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

function loggedIn(): HistoryBuilder {
  return new HistoryBuilder().login(ALICE).login(BOB)
}

function rulesBroken(history: HistoryBuilder): Rule[] {
  return [...new Set(checkHistory(history.exchanges).violations.map(({ rule }) => rule))]
}

test('a valid history passes, with concurrent claims, repeated keys, resets, logins and lost answers', () => {
  const history = loggedIn()
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
  assert.deepEqual(checkHistory(history.exchanges).violations, [])
})

test('only possible effects of a request without an answer are accepted', () => {
  const lost = (): HistoryBuilder =>
    loggedIn().add('POST', '/keys/upload', ALICE.token, { one_time_keys: keys(['1', '2']) }, undefined)
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

const breaches: readonly (readonly [Rule, string, HistoryBuilder])[] = [
  [
    'answers',
    'an answer of 500',
    loggedIn().add('POST', '/keys/upload', ALICE.token, {}, {}, { status: 500 }),
  ],
  [
    'session',
    'a refused session without a logout',
    loggedIn().add('GET', '/sync', ALICE.token, undefined, {}, { status: 401 }),
  ],
  ['session', 'an upload after the logout', loggedIn().logout(ALICE).upload(ALICE, [], { count: 0 })],
  ['uploaded', 'a key that was never sent', loggedIn().upload(ALICE, ['1']).claim(ALICE, '2')],
  [
    'uploaded',
    'a key issued before it was sent',
    loggedIn().claim(ALICE, '1').upload(ALICE, ['1'], { count: 1 }),
  ],
  ['uploaded', "another device's key", loggedIn().upload(BOB, ['1']).claim(ALICE, '1')],
  ['issued once', 'a key issued twice', loggedIn().upload(ALICE, ['1']).claim(ALICE, '1').claim(ALICE, '1')],
  [
    'issued once',
    'a key issued to two claims at the same time',
    loggedIn()
      .upload(ALICE, ['1'])
      .claim(ALICE, '1', { begin: 50, end: 60 })
      .claim(ALICE, '1', { begin: 51, end: 59 }),
  ],
  [
    'stored once',
    'an issued key stored again',
    loggedIn().upload(ALICE, ['1']).claim(ALICE, '1').upload(ALICE, ['1']),
  ],
  [
    'stored once',
    'a key of a session that ended stored again',
    loggedIn()
      .upload(ALICE, ['1'])
      .logout(ALICE)
      .login({ ...ALICE, token: 'x' })
      .upload({ ...ALICE, token: 'x' }, ['1']),
  ],
  [
    'removed',
    'a withdrawn key issued',
    loggedIn().upload(ALICE, ['1']).reset(ALICE, { all: true }, ['1']).claim(ALICE, '1'),
  ],
  [
    'removed',
    'a key issued after its device was removed',
    loggedIn().upload(ALICE, ['1']).logout(ALICE).claim(ALICE, '1'),
  ],
  [
    'outcome',
    'a reset of all that leaves a key',
    loggedIn().upload(ALICE, ['1']).reset(ALICE, { all: true }, []).sync(ALICE, [], 0),
  ],
  [
    'outcome',
    'an available key reported as issued',
    loggedIn().upload(ALICE, ['1']).upload(ALICE, ['1'], { outcome: 'already_issued' }),
  ],
  ['visible', 'a lost acknowledged key', loggedIn().upload(ALICE, ['1', '2']).pool(ALICE, ['1'], [])],
  [
    'visible',
    'an issued key that is available',
    loggedIn().upload(ALICE, ['1']).claim(ALICE, '1').pool(ALICE, ['1'], []),
  ],
  ['visible', 'a key issued without a claim', loggedIn().upload(ALICE, ['1']).pool(ALICE, [], ['1'])],
  ['visible', 'a key that was never uploaded', loggedIn().upload(ALICE, ['1']).pool(ALICE, ['1', '2'], [])],
  [
    'order',
    'a later upload first',
    loggedIn().upload(ALICE, ['2']).upload(ALICE, ['1'], { count: 2 }).claim(ALICE, '1').claim(ALICE, '2'),
  ],
  [
    'order',
    'the higher key ID of an upload first',
    loggedIn().upload(ALICE, ['1', '2']).claim(ALICE, '2').claim(ALICE, '1'),
  ],
  [
    'order',
    'a key that was skipped permanently',
    loggedIn()
      .upload(ALICE, ['2'])
      .upload(ALICE, ['1'], { count: 2 })
      .claim(ALICE, '1')
      .pool(ALICE, ['2'], ['1']),
  ],
  ['false miss', 'nothing while a key is available', loggedIn().upload(ALICE, ['1']).claim(ALICE, undefined)],
  [
    'false miss',
    'the fallback key while a key is available',
    loggedIn().uploadFallback(ALICE, 'F').upload(ALICE, ['1']).claim(ALICE, 'F'),
  ],
  [
    'false miss',
    'nothing while at each moment another key is available',
    loggedIn()
      .upload(ALICE, ['1'], { begin: 10, end: 11 })
      .claim(ALICE, undefined, { begin: 20, end: 90 })
      .upload(ALICE, ['2'], { begin: 30, end: 31, count: 2 })
      .claim(ALICE, '1', { begin: 40, end: 41 })
      .pool(ALICE, ['2'], ['1']),
  ],
  [
    'fallback',
    'nothing while there is a fallback key',
    loggedIn().uploadFallback(ALICE, 'F').claim(ALICE, undefined),
  ],
  [
    'fallback',
    'a replaced fallback key',
    loggedIn().uploadFallback(ALICE, 'F').uploadFallback(ALICE, 'G').claim(ALICE, 'F'),
  ],
  [
    'fallback',
    'a fallback key after the logout',
    loggedIn().uploadFallback(ALICE, 'F').logout(ALICE).claim(ALICE, 'F'),
  ],
  ['count', 'a count that is too high', loggedIn().upload(ALICE, ['1']).sync(ALICE, [], 2)],
  [
    'count',
    'a claim that did not reduce the count',
    loggedIn().upload(ALICE, ['1', '2']).claim(ALICE, '1').sync(ALICE, [], 2),
  ],
  ['count', 'an upload that does not count itself', loggedIn().upload(ALICE, ['1'], { count: 0 })],
  [
    'count',
    'the digest of other keys',
    loggedIn()
      .add('GET', '/sync', ALICE.token, undefined, {
        ...poolState(0),
        to_device: { events: [] },
        'dev.latchkey.key_pool': { epoch: 'e', version: 1, generation: 0, digest: { [CURVE]: 'AAAA' } },
      })
      .upload(ALICE, ['1']),
  ],
  [
    'version',
    'a version that decreases',
    loggedIn().upload(ALICE, ['1'], { version: 2 }).upload(ALICE, ['2'], { count: 2, version: 1 }),
  ],
  [
    'replay',
    'another answer for the same request ID',
    loggedIn()
      .reset(ALICE, { all: true, 'dev.latchkey.request_id': 'r' }, [])
      .reset(ALICE, { all: true, 'dev.latchkey.request_id': 'r' }, [], { count: 1 }),
  ],
  ['delivered', 'a lost message', loggedIn().send(ALICE, 'm').sync(ALICE, [])],
  ['delivered', 'a message twice', loggedIn().send(ALICE, 'm').sync(ALICE, ['m']).sync(ALICE, ['m'])],
  ['delivered', 'a message that was never sent', loggedIn().sync(ALICE, ['m'])],
  [
    'delivered',
    'a message to the previous session',
    loggedIn()
      .send(ALICE, 'm')
      .logout(ALICE)
      .login({ ...ALICE, token: 'x' })
      .sync({ ...ALICE, token: 'x' }, ['m']),
  ],
  [
    'message order',
    'the later message first',
    loggedIn().send(ALICE, 'm1').send(ALICE, 'm2').sync(ALICE, ['m2', 'm1']),
  ],
  ['query', 'device keys that are not shown', loggedIn().publish(ALICE, 'I').query(ALICE, undefined)],
  [
    'query',
    'device keys of a session that ended',
    loggedIn().publish(ALICE, 'I').logout(ALICE).query(ALICE, 'I'),
  ],
]

for (const [rule, what, history] of breaches) {
  test(`${what} breaks the rule "${rule}" and no other`, () => {
    assert.deepEqual(rulesBroken(history), [rule])
  })
}

test('a violation names exactly the requests that prove it', () => {
  const history = loggedIn().upload(ALICE, ['1', '2']).claim(ALICE, '1').sync(ALICE, [], 1).claim(ALICE, '1')
  const [first] = checkHistory(history.exchanges).violations
  assert.deepEqual(first?.requests, [2, 3, 5])
})
