/** Collects each key's certain and possible events from claims, resets, pool readings and logouts. */
import type { Span, Violation } from './exchange.ts'
import { describePool, type Key, type KeyEvent, type Listing, type Pool, type Reset } from './facts.ts'

const NEVER = Number.POSITIVE_INFINITY

/** Fills `events` and `maybe` of every key of the pool. Returns violations that concern no known key. */
export function gatherKeyEvents(pool: Pool): Violation[] {
  const violations: Violation[] = []
  addClaims(pool, violations)
  for (const key of pool.keys.values()) addSessionEnds(key)
  for (const reset of pool.resets) addReset(pool, reset, violations)
  for (const listing of pool.listings) addListing(pool, listing, violations)
  checkUnexplainedIssues(pool, violations)
  return violations
}

function addClaims(pool: Pool, violations: Violation[]): void {
  const fallbacks = new Set(pool.fallbacks.map(({ material }) => material))
  for (const { n, begin, end, key: claimed } of pool.claims) {
    if (claimed === undefined || fallbacks.has(claimed.material)) continue
    const key = pool.keys.get(claimed.material)
    if (key?.names.get(claimed.name) === claimed.text) {
      key.events.push({ n, begin, end, kind: 'issued' })
      continue
    }
    const why = key === undefined ? 'was never uploaded to it' : 'was uploaded with another name or text'
    const text = `a claim got ${claimed.name} of ${describePool(pool)}, which ${why}`
    violations.push({ rule: 'uploaded', text, requests: [n] })
  }
  if (pool.unanswered.length === 0) return
  const n = pool.unanswered[0]?.n ?? 0
  const begin = Math.min(...pool.unanswered.map((claim) => claim.begin))
  for (const key of pool.keys.values()) key.maybe.push({ n, begin, end: NEVER, kind: 'issued' })
}

/** The end of a session removes its keys. */
function addSessionEnds(key: Key): void {
  for (const session of key.sessions) {
    const { stop } = session
    if (stop === undefined) continue
    if (stop.end === NEVER) key.maybe.push({ ...stop, session, kind: 'ended' })
    else key.events.push({ ...stop, session, kind: 'ended' })
  }
}

function addReset(pool: Pool, reset: Reset, violations: Violation[]): void {
  const { n, begin, end, session, asked, withdrawn, own } = reset
  if (withdrawn === undefined) {
    for (const key of pool.keys.values()) {
      if (!key.sessions.has(session) || (asked !== undefined && !isNamed(key, asked))) continue
      key.maybe.push({ n, begin, end: NEVER, session, kind: 'withdrawn' })
    }
    return
  }
  for (const id of withdrawn) {
    const key = pool.byName.get(id)
    if (key !== undefined) key.events.push({ n, begin, end, session, kind: 'withdrawn' })
    else {
      const text = `a reset withdrew ${id} from ${describePool(pool)}, which was never uploaded to it`
      violations.push({ rule: 'uploaded', text, requests: [n] })
    }
  }
  for (const key of pool.keys.values()) {
    if (own.has(key.material) || isNamed(key, withdrawn)) continue
    // A key sent under two names is stored under one of them; the history does not always show which.
    if (asked !== undefined && (key.names.size > 1 || !isNamed(key, asked))) continue
    addAbsence(key, { n, begin, end, session, kind: 'absent' })
  }
}

function isNamed(key: Key, ids: ReadonlySet<string>): boolean {
  for (const id of key.names.keys()) if (ids.has(id)) return true
  return false
}

function addListing(pool: Pool, listing: Listing, violations: Violation[]): void {
  const { n, begin, end, session, first } = listing
  const listed = new Set<Key>()
  for (const [list, kind, span] of [
    [listing.available, 'seen available', first],
    [listing.issued, 'seen issued', { n, begin, end }],
  ] as const) {
    for (const { id, hash } of list) {
      const key = pool.byHash.get(hash)
      if (key?.names.has(id) === true && !listed.has(key)) {
        listed.add(key)
        key.events.push({ ...span, session, kind })
        continue
      }
      const why =
        key === undefined || !listed.has(key) ? 'which was not uploaded in this form' : 'which it shows twice'
      const text = `keys/pool of ${describePool(pool)} shows ${id} (${kind.slice(5)}), ${why}`
      violations.push({ rule: 'visible', text, requests: [n] })
    }
  }
  const complete = first.end === end || isQuiet(pool, listing)
  for (const key of pool.keys.values()) {
    if (listed.has(key)) continue
    // Keys issued in a former session are not shown to this one.
    const isOfThisSession = key.sessions.size === 1 && key.sessions.has(session)
    if (complete && isOfThisSession) addAbsence(key, { n, begin, end, session, kind: 'seen neither' })
    else addAbsence(key, { ...first, session, kind: 'absent' })
  }
}

/** Whether no claim can have moved a key from one page to another. */
function isQuiet(pool: Pool, { begin, end }: Span): boolean {
  const claims: readonly Span[] = [...pool.claims, ...pool.unanswered]
  return !claims.some((claim) => claim.begin < end && claim.end > begin)
}

/** Adds an absence unless it is implied: before the key was sent, after it was issued, or after its sessions ended. */
function addAbsence(key: Key, event: KeyEvent): void {
  const stored = [...key.events, ...key.maybe].filter(({ kind }) => kind === 'stored')
  if (stored.every(({ begin }) => begin > event.end)) return
  const isIssued = key.events.some(({ kind, end }) => kind === 'issued' && end < event.begin)
  const isOver = [...key.sessions].every(({ stop }) => stop !== undefined && stop.end < event.begin)
  if (event.kind === 'absent' && (isIssued || isOver)) return
  key.events.push(event)
}

/** Keys that are issued although no claim returned them; each requires a claim without an answer. */
function checkUnexplainedIssues(pool: Pool, violations: Violation[]): void {
  const unexplained = [...pool.keys.values()].filter(
    ({ events }) =>
      events.some(({ kind }) => kind === 'seen issued' || kind === 'already_issued') &&
      !events.some(({ kind }) => kind === 'issued'),
  )
  if (unexplained.length <= pool.unanswered.length || pool.unanswered.length === 0) return
  violations.push({
    rule: 'visible',
    text: `${unexplained.length} keys of ${describePool(pool)} are issued but in no claim's answer, and only ${pool.unanswered.length} claims got no answer`,
    requests: pool.unanswered.map(({ n }) => n),
  })
}
