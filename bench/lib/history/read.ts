/**
 * Turns exchanges into facts by method and path. A request without an answer, or with 503, may have been executed at
 * any moment from its beginning, or never; a refused request was not executed.
 */
import { type Exchange, MalformedHistory, type Span } from './exchange.ts'
import { deviceOf, type Facts, type Session, newFacts, poolOf } from './facts.ts'
import { asList, asObject, type Json, type JsonObject, parse, text } from './json.ts'
import { addSnapshot } from './add-snapshot.ts'
import { type OpenListings, readPoolPage } from './read-listing.ts'
import { endOfResets, readReset, readUpload, type Resets } from './read-writes.ts'

type Reader = {
  readonly facts: Facts
  readonly resets: Resets
  readonly listings: OpenListings
  /** Beginning of logins without an answer, by device name: the next session may have begun with them. */
  readonly lostLogins: Map<string, number>
}

/** @throws {MalformedHistory} for requests that the checker does not support. */
export function readHistory(history: Iterable<Exchange>): Facts {
  const facts = newFacts()
  const reader: Reader = { facts, resets: new Map(), listings: new Map(), lostLogins: new Map() }
  for (const exchange of history) readOne(reader, exchange)
  endOfResets(facts, reader.resets)
  return facts
}

function readOne(reader: Reader, exchange: Exchange): void {
  const { facts } = reader
  const { n, begin, method, token } = exchange
  const path = exchange.path.replace(/\?.*/, '').replace(/^\/_matrix\/client\/(?:v\d+|unstable\/[^/]+)/, '')
  facts.requests++
  const unknown = exchange.status === undefined || exchange.status === 503
  if (unknown) facts.unanswered++
  const span: Span = {
    n,
    begin,
    end: unknown ? Number.POSITIVE_INFINITY : (exchange.end ?? Number.POSITIVE_INFINITY),
  }
  if (path === '/register' || path === '/login') return readLogin(reader, exchange, span)
  const session = facts.sessions.get(token ?? '')
  if (session === undefined) throw new MalformedHistory(`request ${n} has a token that no login returned`)
  if (path === '/logout') readLogout(session, exchange, span)
  if (!unknown) facts.authResults.push({ ...span, session, refused: exchange.status === 401 })
  if (exchange.status === 401) return
  const conditional = path === '/keys/reset' && exchange.status === 409
  if (!unknown && exchange.status !== 200 && !conditional) {
    facts.unexpected.push({ exchange, why: `is answered ${exchange.status}` })
    return
  }
  if (conditional) return
  const body = exchange.body === undefined ? {} : asObject(parse(exchange.body))
  const answer = unknown ? undefined : asObject(parse(exchange.answer ?? '{}'))
  switch (`${method} ${path.replace(/^\/sendToDevice\/.*/, '/sendToDevice')}`) {
    case 'POST /logout':
      return
    case 'POST /keys/upload':
      return readUpload(facts, session, exchange, span, body, answer)
    case 'POST /keys/reset':
      return readReset(reader.resets, session, exchange, span, body, answer)
    case 'POST /keys/claim':
      return readClaim(facts, span, body, answer)
    case 'POST /keys/query':
      return readQuery(facts, span, body, answer)
    case 'PUT /sendToDevice':
      return readSend(facts, span, body)
    case 'GET /sync':
      return readSync(facts, session, exchange, span, answer)
    case 'GET /keys/pool':
      return readPoolPage(reader.listings, session, exchange, span, answer)
    default:
      throw new MalformedHistory(`request ${n} is ${method} ${path}, which the checker does not support`)
  }
}

function readLogin({ facts, lostLogins }: Reader, exchange: Exchange, span: Span): void {
  const body = asObject(parse(exchange.body ?? '{}'))
  const deviceId = text(body['device_id'])
  const login = asObject(body['identifier'])
  const name = `${text(login['user'] ?? body['username'])} ${deviceId}`
  if (exchange.status !== 200) {
    if (exchange.status !== undefined && exchange.status !== 503) {
      facts.unexpected.push({ exchange, why: `is answered ${exchange.status}` })
    }
    lostLogins.set(name, Math.min(span.begin, lostLogins.get(name) ?? span.begin))
    return
  }
  const answer = asObject(parse(exchange.answer ?? '{}'))
  const token = text(answer['access_token'])
  const device = deviceOf(facts, text(answer['user_id']), text(answer['device_id']))
  const former = device.sessions.at(-1)
  if (former !== undefined && !((former.stop?.end ?? Number.POSITIVE_INFINITY) < span.begin)) {
    throw new MalformedHistory(`request ${span.n} logs in a device without a logout before`)
  }
  const begin = lostLogins.get(name) ?? span.begin
  lostLogins.delete(name)
  const session: Session = { device, token, start: { ...span, begin }, stop: undefined }
  device.sessions.push(session)
  facts.sessions.set(token, session)
}

/** 401 to a logout means the same as 200: the session has ended. */
function readLogout(session: Session, { status }: Exchange, span: Span): void {
  const answered = status === 200 || status === 401
  const known = session.stop
  const end = Math.min(answered ? span.end : Number.POSITIVE_INFINITY, known?.end ?? Number.POSITIVE_INFINITY)
  session.stop = { n: known?.n ?? span.n, begin: Math.min(span.begin, known?.begin ?? span.begin), end }
}

function readClaim(facts: Facts, span: Span, body: JsonObject, answer: JsonObject | undefined): void {
  const given = asObject(answer?.['one_time_keys'])
  for (const [user, devices] of Object.entries(asObject(body['one_time_keys']))) {
    for (const [id, algorithm] of Object.entries(asObject(devices))) {
      const pool = poolOf(deviceOf(facts, user, id), text(algorithm))
      if (answer === undefined) {
        pool.unanswered.push(span)
        continue
      }
      const keys = Object.entries(asObject(asObject(given[user])[id]))
      const [found] = keys
      pool.claims.push({ ...span, key: found && claimedKey(found[0], found[1]) })
    }
  }
}

function claimedKey(fullName: string, key: Json): { name: string; material: string; text: string } {
  return {
    name: fullName.slice(fullName.indexOf(':') + 1),
    material: typeof key === 'string' ? key : text(asObject(key)['key']),
    text: JSON.stringify(key),
  }
}

function readQuery(facts: Facts, span: Span, body: JsonObject, answer: JsonObject | undefined): void {
  if (answer === undefined) return
  const shown = new Map<string, string>()
  for (const [user, devices] of Object.entries(asObject(answer['device_keys']))) {
    for (const [id, keys] of Object.entries(asObject(devices))) {
      shown.set(`${user} ${id}`, text(asObject(asObject(keys)['keys'])[`ed25519:${id}`]))
    }
  }
  facts.queries.push({ ...span, users: Object.keys(asObject(body['device_keys'])), shown })
}

/** A repeated transaction ID is the same message. */
function readSend(facts: Facts, span: Span, body: JsonObject): void {
  for (const [user, devices] of Object.entries(asObject(body['messages']))) {
    for (const [deviceId, content] of Object.entries(asObject(devices))) {
      const to = deviceOf(facts, user, deviceId)
      const id = text(asObject(content)['id'])
      const name = `${user} ${deviceId} ${id}`
      const known = facts.messages.get(name)
      if (known === undefined) {
        facts.messages.set(name, { id, to, begin: span.begin, end: span.end, requests: [span.n] })
      } else {
        known.begin = Math.min(known.begin, span.begin)
        known.end = Math.min(known.end, span.end)
        known.requests.push(span.n)
      }
    }
  }
}

function readSync(
  facts: Facts,
  session: Session,
  exchange: Exchange,
  span: Span,
  answer: JsonObject | undefined,
): void {
  if (answer === undefined) return
  const events = asList(asObject(answer['to_device'])['events'])
  const since = new URLSearchParams(exchange.path.split('?')[1] ?? '').get('since') ?? undefined
  const syncs = facts.syncs.get(session) ?? []
  facts.syncs.set(session, syncs)
  syncs.push({
    ...span,
    since,
    nextBatch: text(answer['next_batch']),
    messages: events.map((event) => text(asObject(asObject(event)['content'])['id'])),
  })
  addSnapshot(session, span, answer, 'device_one_time_keys_count')
}
