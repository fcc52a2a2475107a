/**
 * Judges a history of requests and answers. It shares no code with the server: all that it knows are the texts on the wire,
 * and these rules. A request happened at one moment between its beginning and its answer; without an answer (or with 503)
 * at any later moment, or never. A history is refused when no choice of moments agrees with all its answers:
 *
 *     answers        every request is answered 200, 401 or 503, a reset's precondition 409
 *     session        nobody is refused before its logout, nobody served after it
 *     uploaded       a claim's key was sent to this pool, as it is, by a request begun before the claim ended
 *     once           no key is issued twice
 *     enter once     what was issued, or was there when its device logged out, does not enter again
 *     gone           what was withdrawn, or went with its device, is not issued
 *     outcome        what uploads and resets say of each key agrees with everything else that is said of it
 *     visible        `keys/pool` shows exactly what was uploaded, less what was withdrawn, available or issued as it was
 *     order          no key leaves while one that was surely uploaded before it is surely there
 *     miss           no claim gets a fallback key, or nothing, while at each moment of it some one-time key is surely there
 *     fallback       a fallback key given is the current one; no claim gets nothing while there is one
 *     count          counts are possible; where only one set of keys is, the digest is that of this set
 *     version        a device's version and generation never go back; there is one epoch
 *     replay         a reset repeated under its request ID gets the same answer
 *     delivered      a message acknowledged to a device that is there comes in its next sync, once, and no other comes
 *     message order  messages come in the order in which they were sent, if one was acknowledged before the other began
 *     query          `keys/query` shows the device keys that were uploaded, while their session lasts
 *
 * Depletion defence, eviction and conflicts are not judged: the load is to keep clear of them.
 */
import { type Exchange, type Rule, type Violation } from './history/exchange.ts'
import { judgeKey } from './history/explain-key.ts'
import { type Facts, type Pool } from './history/facts.ts'
import { judgeCounts, judgeVersions } from './history/judge-counts.ts'
import { judgeMessages, judgeQueries, judgeSessions } from './history/judge-devices.ts'
import { judgeFallbacks, judgeMisses, judgeOrder } from './history/judge-pool.ts'
import { gatherKeyEvents } from './history/key-events.ts'
import { presenceOf } from './history/presence.ts'
import { readHistory } from './history/read.ts'

export { type Exchange, MalformedHistory, type Rule, type Violation } from './history/exchange.ts'

export type Verdict = {
  /** The one with the fewest requests first. */
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

/** @throws {MalformedHistory} when the history is not one that can be judged. */
export function checkHistory(history: Iterable<Exchange>): Verdict {
  const facts = readHistory(history)
  const pools = [...facts.devices.values()].flatMap((device) => [...device.pools.values()])
  const violations = [
    ...facts.odd.map(({ exchange, why }) => violation('answers', `#${exchange.n} ${why}`, exchange.n)),
    ...facts.replays.flatMap(({ requests, same }) =>
      same ? [] : [violation('replay', 'a repeated reset got another answer', ...requests)],
    ),
    ...judgeSessions(facts),
    ...judgeQueries(facts),
    ...judgeMessages(facts),
    ...[...facts.devices.values()].flatMap(judgeVersions),
    ...pools.flatMap(judgePool),
  ]
  return {
    violations: violations.toSorted((a, b) => a.requests.length - b.requests.length),
    seen: summary(facts, pools),
  }
}

function violation(rule: Rule, text: string, ...requests: readonly number[]): Violation {
  return { rule, text, requests }
}

function judgePool(pool: Pool): Violation[] {
  const strays = gatherKeyEvents(pool)
  const keys = [...pool.keys.values()]
  const inexplicable = keys.map(judgeKey).filter((found) => found !== undefined)
  const found = [...strays, ...inexplicable, ...judgeFallbacks(pool)]
  // What follows supposes that each key's own story is sound.
  if (strays.length + inexplicable.length > 0) return found
  const presences = keys.map(presenceOf).filter((presence) => presence !== undefined)
  return [
    ...found,
    ...judgeOrder(pool, presences),
    ...judgeMisses(pool, presences),
    ...judgeCounts(pool, presences),
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
    counts: [...facts.devices.values()].reduce((sum, { standings }) => sum + standings.length, 0),
    messages: facts.messages.size,
  }
}
