/** Uploads and resets: which keys they offered, and what the answer says became of each. */
import { createHash } from 'node:crypto'
import { type Exchange, MalformedHistory, type Span } from './exchange.ts'
import { type Facts, type Key, type KeyEventKind, type Life, type Pool, poolOf, type Reset } from './facts.ts'
import { asList, asObject, type Json, type JsonObject, text } from './json.ts'
import { noteStanding } from './note-standing.ts'

export function readUpload(
  facts: Facts,
  life: Life,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): void {
  const stored = readOffers(facts, life, exchange, span, body, answer)
  const identity = text(asObject(asObject(body['device_keys'])['keys'])[`ed25519:${life.device.id}`])
  if (identity !== '') {
    life.device.published.push({ ...span, life, ed25519: identity, certain: answer !== undefined })
  }
  if (answer === undefined) return
  noteStanding(life, span, answer, 'one_time_key_counts', { stored, withdrawn: new Set() })
}

/** Resets under way, by token and request ID: a repeated one has one effect and one answer. */
export type Resets = Map<string, Attempt[]>

type Attempt = {
  readonly exchange: Exchange
  readonly life: Life
  readonly span: Span
  readonly body: JsonObject
  readonly answer: JsonObject | undefined
}

export function readReset(
  resets: Resets,
  life: Life,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): void {
  const requestId = text(body['dev.latchkey.request_id'])
  const name = `${life.token} ${requestId === '' ? `#${span.n}` : requestId}`
  const attempts = resets.get(name) ?? []
  resets.set(name, attempts)
  attempts.push({ exchange, life, span, body, answer })
}

export function endOfResets(facts: Facts, resets: Resets): void {
  for (const attempts of resets.values()) {
    const answered = attempts.filter(({ answer }) => answer !== undefined)
    const shown = answered[0] ?? attempts[0]
    if (shown === undefined) continue
    const span = {
      n: shown.span.n,
      begin: Math.min(...attempts.map((attempt) => attempt.span.begin)),
      end: Math.min(...attempts.map((attempt) => attempt.span.end)),
    }
    if (answered.length > 1) {
      const texts = new Set(answered.map(({ exchange }) => exchange.answer))
      facts.replays.push({ requests: answered.map(({ exchange }) => exchange.n), same: texts.size === 1 })
    }
    applyReset(facts, { ...shown, span })
  }
}

function applyReset(facts: Facts, { life, exchange, span, body, answer }: Attempt): void {
  const own = readOffers(facts, life, exchange, span, body, answer)
  const asked = body['all'] === true ? undefined : asList(body['key_ids']).map(text)
  const withdrawn = asList(answer?.['dev.latchkey.withdrawn']).map(text)
  const algorithms = new Set([
    ...life.device.pools.keys(),
    ...[...(asked ?? []), ...withdrawn].map((name) => splitName(name)[0]),
  ])
  const gone = new Set<string>()
  for (const algorithm of algorithms) {
    const pool = poolOf(life.device, algorithm)
    const reset: Reset = {
      ...span,
      life,
      asked: asked && idsOf(asked, algorithm),
      withdrawn: answer && idsOf(withdrawn, algorithm),
      own: offeredIn(pool, body),
    }
    pool.resets.push(reset)
    for (const id of reset.withdrawn ?? []) {
      const key = pool.byName.get(id)
      if (key !== undefined) gone.add(key.material)
    }
  }
  if (answer === undefined) return
  noteStanding(life, span, answer, 'device_one_time_keys_count', { stored: own, withdrawn: gone })
}

function idsOf(names: readonly string[], algorithm: string): ReadonlySet<string> {
  return new Set(names.flatMap((name) => (splitName(name)[0] === algorithm ? [splitName(name)[1]] : [])))
}

function offeredIn(pool: Pool, body: JsonObject): ReadonlySet<string> {
  const offered = Object.entries(asObject(body['one_time_keys']))
  return new Set(
    offered.flatMap(([name, key]) => (splitName(name)[0] === pool.algorithm ? [materialOf(key)] : [])),
  )
}

/** The keys of an upload or a reset. Returns the public keys that its answer calls stored. */
function readOffers(
  facts: Facts,
  life: Life,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): Set<string> {
  const outcomes = asObject(answer?.['dev.latchkey.outcomes'])
  const stored = new Set<string>()
  const offered = Map.groupBy(Object.entries(asObject(body['one_time_keys'])), ([name, value]) =>
    JSON.stringify([splitName(name)[0], materialOf(value)]),
  )
  for (const offers of offered.values()) {
    const keys = offers.map(([name, value]) => keyOf(life, name, value))
    const [key] = keys
    if (key === undefined) continue
    key.lives.add(life)
    if (answer === undefined) {
      key.maybe.push({ ...span, life, kind: 'stored' })
      continue
    }
    const said = offers.map(([name]) => text(outcomes[name]))
    const kind = kindOf(said)
    if (kind === undefined)
      facts.odd.push({ exchange, why: `says nothing usable of a key it was sent: ${said}` })
    else key.events.push({ ...span, life, kind })
    if (kind === 'stored') stored.add(key.material)
  }
  const fallbackOutcomes = asObject(answer?.['dev.latchkey.fallback_outcomes'])
  for (const [name, value] of Object.entries(asObject(body['fallback_keys']))) {
    const outcome = answer === undefined ? 'unknown' : text(fallbackOutcomes[name])
    const pool = poolOf(life.device, splitName(name)[0])
    pool.fallbacks.push({ ...span, life, material: materialOf(value), outcome })
  }
  return stored
}

/** The same key under two names in one request: if it was stored under one, the other is `already_stored`. */
function kindOf(outcomes: readonly string[]): KeyEventKind | undefined {
  if (outcomes.includes('stored') || outcomes.includes('id_reused')) return 'stored'
  const [kind] = outcomes
  return kind === 'already_stored' || kind === 'already_issued' || kind === 'already_removed'
    ? kind
    : undefined
}

function keyOf(life: Life, name: string, value: Json): Key {
  const [algorithm, id] = splitName(name)
  const pool = poolOf(life.device, algorithm)
  const material = materialOf(value)
  const key = pool.keys.get(material) ?? {
    pool,
    material,
    names: new Map(),
    events: [],
    maybe: [],
    lives: new Set(),
  }
  pool.keys.set(material, key)
  pool.byHash.set(createHash('sha256').update(material).digest('base64url'), key)
  if ((pool.byName.get(id) ?? key) !== key) {
    throw new MalformedHistory(`two keys of one pool are called ${id}`)
  }
  pool.byName.set(id, key)
  key.names.set(id, JSON.stringify(value))
  return key
}

function materialOf(value: Json): string {
  return typeof value === 'string' ? value : text(asObject(value)['key'])
}

function splitName(name: string): readonly [string, string] {
  const colon = name.indexOf(':')
  return [name.slice(0, colon), name.slice(colon + 1)]
}
