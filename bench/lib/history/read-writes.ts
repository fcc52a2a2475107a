/** Reads uploads and resets: the keys they sent and the outcome of each. */
import { createHash } from 'node:crypto'
import { type Exchange, MalformedHistory, type Span } from './exchange.ts'
import {
  type Facts,
  type Key,
  type KeyEventKind,
  type Session,
  type Pool,
  poolOf,
  type Reset,
} from './facts.ts'
import { asList, asObject, type Json, type JsonObject, text } from './json.ts'
import { addSnapshot } from './add-snapshot.ts'

export function readUpload(
  facts: Facts,
  session: Session,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): void {
  const stored = readKeys(facts, session, exchange, span, body, answer)
  const identity = text(asObject(asObject(body['device_keys'])['keys'])[`ed25519:${session.device.id}`])
  if (identity !== '') {
    session.device.published.push({ ...span, session, ed25519: identity, certain: answer !== undefined })
  }
  if (answer === undefined) return
  addSnapshot(session, span, answer, 'one_time_key_counts', { stored, withdrawn: new Set() })
}

/** Resets by token and request ID; repetitions share one effect and one answer. */
export type Resets = Map<string, Attempt[]>

type Attempt = {
  readonly exchange: Exchange
  readonly session: Session
  readonly span: Span
  readonly body: JsonObject
  readonly answer: JsonObject | undefined
}

export function readReset(
  resets: Resets,
  session: Session,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): void {
  const requestId = text(body['dev.latchkey.request_id'])
  const name = `${session.token} ${requestId === '' ? `#${span.n}` : requestId}`
  const attempts = resets.get(name) ?? []
  resets.set(name, attempts)
  attempts.push({ exchange, session, span, body, answer })
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

function applyReset(facts: Facts, { session, exchange, span, body, answer }: Attempt): void {
  const own = readKeys(facts, session, exchange, span, body, answer)
  const asked = body['all'] === true ? undefined : asList(body['key_ids']).map(text)
  const withdrawn = asList(answer?.['dev.latchkey.withdrawn']).map(text)
  const algorithms = new Set([
    ...session.device.pools.keys(),
    ...[...(asked ?? []), ...withdrawn].map((name) => splitName(name)[0]),
  ])
  const withdrawnMaterials = new Set<string>()
  for (const algorithm of algorithms) {
    const pool = poolOf(session.device, algorithm)
    const reset: Reset = {
      ...span,
      session,
      asked: asked && idsOf(asked, algorithm),
      withdrawn: answer && idsOf(withdrawn, algorithm),
      own: sentIn(pool, body),
    }
    pool.resets.push(reset)
    for (const id of reset.withdrawn ?? []) {
      const key = pool.byName.get(id)
      if (key !== undefined) withdrawnMaterials.add(key.material)
    }
  }
  if (answer === undefined) return
  addSnapshot(session, span, answer, 'device_one_time_keys_count', {
    stored: own,
    withdrawn: withdrawnMaterials,
  })
}

function idsOf(names: readonly string[], algorithm: string): ReadonlySet<string> {
  return new Set(names.flatMap((name) => (splitName(name)[0] === algorithm ? [splitName(name)[1]] : [])))
}

function sentIn(pool: Pool, body: JsonObject): ReadonlySet<string> {
  const sent = Object.entries(asObject(body['one_time_keys']))
  return new Set(
    sent.flatMap(([name, key]) => (splitName(name)[0] === pool.algorithm ? [materialOf(key)] : [])),
  )
}

/** Reads the keys of an upload or reset. Returns the public keys with the outcome `stored`. */
function readKeys(
  facts: Facts,
  session: Session,
  exchange: Exchange,
  span: Span,
  body: JsonObject,
  answer: JsonObject | undefined,
): Set<string> {
  const outcomes = asObject(answer?.['dev.latchkey.outcomes'])
  const stored = new Set<string>()
  const sent = Map.groupBy(Object.entries(asObject(body['one_time_keys'])), ([name, value]) =>
    JSON.stringify([splitName(name)[0], materialOf(value)]),
  )
  for (const names of sent.values()) {
    const keys = names.map(([name, value]) => keyOf(session, name, value))
    const [key] = keys
    if (key === undefined) continue
    key.sessions.add(session)
    if (answer === undefined) {
      key.maybe.push({ ...span, session, kind: 'stored' })
      continue
    }
    const received = names.map(([name]) => text(outcomes[name]))
    const kind = kindOf(received)
    if (kind === undefined)
      facts.unexpected.push({ exchange, why: `has no valid outcome for a sent key: ${received}` })
    else key.events.push({ ...span, session, kind })
    if (kind === 'stored') stored.add(key.material)
  }
  const fallbackOutcomes = asObject(answer?.['dev.latchkey.fallback_outcomes'])
  for (const [name, value] of Object.entries(asObject(body['fallback_keys']))) {
    const outcome = answer === undefined ? 'unknown' : text(fallbackOutcomes[name])
    const pool = poolOf(session.device, splitName(name)[0])
    pool.fallbacks.push({ ...span, session, material: materialOf(value), outcome })
  }
  return stored
}

/** Outcome of a key sent under several names in one request: if one is stored, the others are `already_stored`. */
function kindOf(outcomes: readonly string[]): KeyEventKind | undefined {
  if (outcomes.includes('stored') || outcomes.includes('id_reused')) return 'stored'
  const [kind] = outcomes
  return kind === 'already_stored' || kind === 'already_issued' || kind === 'already_removed'
    ? kind
    : undefined
}

function keyOf(session: Session, name: string, value: Json): Key {
  const [algorithm, id] = splitName(name)
  const pool = poolOf(session.device, algorithm)
  const material = materialOf(value)
  const key = pool.keys.get(material) ?? {
    pool,
    material,
    names: new Map(),
    events: [],
    maybe: [],
    sessions: new Set(),
  }
  pool.keys.set(material, key)
  pool.byHash.set(createHash('sha256').update(material).digest('base64url'), key)
  if ((pool.byName.get(id) ?? key) !== key) {
    throw new MalformedHistory(`two keys of one pool have the ID ${id}`)
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
