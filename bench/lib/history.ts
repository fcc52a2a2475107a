/**
 * Checks a history of requests and answers. It shares no code with the server; it uses only the texts on the wire and
 * these rules. A request took effect at one moment between its beginning and its answer; without an answer (or with
 * 503) at any later moment, or never. A history is rejected when no choice of moments agrees with all its answers:
 *
 *     answers        every request is answered 200, 401 or 503, a reset's precondition 409
 *     session        no session is refused before its logout or served after it
 *     uploaded       a claimed key was sent to this pool, unchanged, by a request begun before the claim ended
 *     issued once    no key is issued twice
 *     stored once    a key that was issued, or was available when its session ended, is not stored again
 *     removed        a key that was withdrawn, or removed with its device, is not issued
 *     outcome        the outcomes of uploads and resets agree with all other answers about the key
 *     visible        `keys/pool` shows exactly the uploaded keys except withdrawn ones, each in its state
 *     order          no key is issued while one that was certainly uploaded earlier is certainly available
 *     false miss     no claim gets a fallback key or nothing while at each of its moments a key is certainly available
 *     fallback       a claimed fallback key is the current one; no claim gets nothing while there is one
 *     count          counts are possible; where only one set of keys is possible, the digest is that of this set
 *     version        a device's version and generation never decrease; there is one epoch
 *     replay         a reset repeated with its request ID gets the same answer
 *     delivered      a message acknowledged for an existing device is in its next sync, once, and no other message is
 *     message order  messages arrive in sending order, if one was acknowledged before the other began
 *     query          `keys/query` shows the uploaded device keys while their session lasts
 *
 * Depletion defence, eviction and conflicts are not checked; the load must avoid them.
 */
import { type Exchange, type Rule, type Violation } from './history/exchange.ts'
import { checkKey } from './history/check-key.ts'
import { type Facts, type Pool } from './history/facts.ts'
import { checkCounts, checkVersions } from './history/check-counts.ts'
import { checkMessages, checkQueries, checkSessions } from './history/check-devices.ts'
import { checkFallbacks, checkMisses, checkOrder } from './history/check-pool.ts'
import { gatherKeyEvents } from './history/key-events.ts'
import { presenceOf } from './history/presence.ts'
import { readHistory } from './history/read.ts'

export { type Exchange, MalformedHistory, type Rule, type Violation } from './history/exchange.ts'

export type Verdict = {
  /** Sorted by number of requests, fewest first. */
  readonly violations: readonly Violation[]
  readonly seen: {
    readonly requests: number
    readonly unanswered: number
    readonly keys: number
    readonly issued: number
    /** Claims answered with a fallback key, or nothing. */
    readonly misses: number
    readonly counts: number
    readonly messages: number
  }
}

/** @throws {MalformedHistory} when the history cannot be checked. */
export function checkHistory(history: Iterable<Exchange>): Verdict {
  const facts = readHistory(history)
  const pools = [...facts.devices.values()].flatMap((device) => [...device.pools.values()])
  const violations = [
    ...facts.unexpected.map(({ exchange, why }) => violation('answers', `#${exchange.n} ${why}`, exchange.n)),
    ...facts.replays.flatMap(({ requests, same }) =>
      same ? [] : [violation('replay', 'a repeated reset got a different answer', ...requests)],
    ),
    ...checkSessions(facts),
    ...checkQueries(facts),
    ...checkMessages(facts),
    ...[...facts.devices.values()].flatMap(checkVersions),
    ...pools.flatMap(checkPool),
  ]
  return {
    violations: violations.toSorted((a, b) => a.requests.length - b.requests.length),
    seen: summary(facts, pools),
  }
}

function violation(rule: Rule, text: string, ...requests: readonly number[]): Violation {
  return { rule, text, requests }
}

function checkPool(pool: Pool): Violation[] {
  const unknownKeys = gatherKeyEvents(pool)
  const keys = [...pool.keys.values()]
  const inconsistent = keys.map(checkKey).filter((found) => found !== undefined)
  const found = [...unknownKeys, ...inconsistent, ...checkFallbacks(pool)]
  // The rules below require that each key's own events are consistent.
  if (unknownKeys.length + inconsistent.length > 0) return found
  const presences = keys.map(presenceOf).filter((presence) => presence !== undefined)
  return [
    ...found,
    ...checkOrder(pool, presences),
    ...checkMisses(pool, presences),
    ...checkCounts(pool, presences),
  ]
}

function summary(facts: Facts, pools: readonly Pool[]): Verdict['seen'] {
  const claims = pools.flatMap((pool) =>
    pool.claims.map(({ key }) => key !== undefined && pool.keys.has(key.material)),
  )
  return {
    requests: facts.requests,
    unanswered: facts.unanswered,
    keys: pools.reduce((sum, { keys }) => sum + keys.size, 0),
    issued: claims.filter((issued) => issued).length,
    misses: claims.filter((issued) => !issued).length,
    counts: [...facts.devices.values()].reduce((sum, { snapshots }) => sum + snapshots.length, 0),
    messages: facts.messages.size,
  }
}
