/** Gathers what happened, and what may have happened, to each key: from claims, resets, readings of the pool, logouts. */
import type { Span, Violation } from './exchange.ts'
import { describePool, type Key, type KeyEvent, type Listing, type Pool, type Reset } from './facts.ts'

const NEVER = Number.POSITIVE_INFINITY

/** Fills `events` and `maybe` of every key of the pool. Returns what no key can answer for. */
export function gatherKeyEvents(pool: Pool): Violation[] {
  const violations: Violation[] = []
  noteClaims(pool, violations)
  for (const key of pool.keys.values()) noteLives(key)
  for (const reset of pool.resets) noteReset(pool, reset, violations)
  for (const listing of pool.listings) noteListing(pool, listing, violations)
  notePhantoms(pool, violations)
  return violations
}

function noteClaims(pool: Pool, violations: Violation[]): void {
  const fallbacks = new Set(pool.fallbacks.map(({ material }) => material))
  for (const { n, begin, end, key: claimed } of pool.claims) {
    if (claimed === undefined || fallbacks.has(claimed.material)) continue
    const key = pool.keys.get(claimed.material)
    if (key?.names.get(claimed.name) === claimed.text) {
      key.events.push({ n, begin, end, kind: 'issued' })
      continue
    }
    const why = key === undefined ? 'nobody uploaded to it' : 'was uploaded with another name or text'
    const text = `a claim got ${claimed.name} of ${describePool(pool)}, which ${why}`
    violations.push({ rule: 'uploaded', text, requests: [n] })
  }
  if (pool.unanswered.length === 0) return
  const n = pool.unanswered[0]?.n ?? 0
  const begin = Math.min(...pool.unanswered.map((claim) => claim.begin))
  for (const key of pool.keys.values()) key.maybe.push({ n, begin, end: NEVER, kind: 'issued' })
}

/** With the end of a life its keys go. */
function noteLives(key: Key): void {
  for (const life of key.lives) {
    const { stop } = life
    if (stop === undefined) continue
    if (stop.end === NEVER) key.maybe.push({ ...stop, life, kind: 'ended' })
    else key.events.push({ ...stop, life, kind: 'ended' })
  }
}

function noteReset(pool: Pool, reset: Reset, violations: Violation[]): void {
  const { n, begin, end, life, asked, withdrawn, own } = reset
  if (withdrawn === undefined) {
    for (const key of pool.keys.values()) {
      if (!key.lives.has(life) || (asked !== undefined && !isNamed(key, asked))) continue
      key.maybe.push({ n, begin, end: NEVER, life, kind: 'withdrawn' })
    }
    return
  }
  for (const id of withdrawn) {
    const key = pool.byName.get(id)
    if (key !== undefined) key.events.push({ n, begin, end, life, kind: 'withdrawn' })
    else {
      const text = `a reset withdrew ${id} from ${describePool(pool)}, which nobody uploaded to it`
      violations.push({ rule: 'uploaded', text, requests: [n] })
    }
  }
  for (const key of pool.keys.values()) {
    if (own.has(key.material) || isNamed(key, withdrawn)) continue
    // A key that was sent under two names is stored under one of them, and the history does not always say which.
    if (asked !== undefined && (key.names.size > 1 || !isNamed(key, asked))) continue
    noteAbsence(key, { n, begin, end, life, kind: 'absent' })
  }
}

function isNamed(key: Key, ids: ReadonlySet<string>): boolean {
  for (const id of key.names.keys()) if (ids.has(id)) return true
  return false
}

function noteListing(pool: Pool, listing: Listing, violations: Violation[]): void {
  const { n, begin, end, life, first } = listing
  const listed = new Set<Key>()
  for (const [list, kind, span] of [
    [listing.available, 'seen available', first],
    [listing.issued, 'seen issued', { n, begin, end }],
  ] as const) {
    for (const { id, hash } of list) {
      const key = pool.byHash.get(hash)
      if (key?.names.has(id) === true && !listed.has(key)) {
        listed.add(key)
        key.events.push({ ...span, life, kind })
        continue
      }
      const why =
        key === undefined || !listed.has(key) ? 'which nobody uploaded as that' : 'which it shows twice'
      const text = `keys/pool of ${describePool(pool)} shows ${id} (${kind.slice(5)}), ${why}`
      violations.push({ rule: 'visible', text, requests: [n] })
    }
  }
  const complete = first.end === end || isQuiet(pool, listing)
  for (const key of pool.keys.values()) {
    if (listed.has(key)) continue
    // What was issued to a former life is not shown to this one.
    const isOfThisLife = key.lives.size === 1 && key.lives.has(life)
    if (complete && isOfThisLife) noteAbsence(key, { n, begin, end, life, kind: 'seen neither' })
    else noteAbsence(key, { ...first, life, kind: 'absent' })
  }
}

/** Whether no claim may have moved a key from one page to another. */
function isQuiet(pool: Pool, { begin, end }: Span): boolean {
  const claims: readonly Span[] = [...pool.claims, ...pool.unanswered]
  return !claims.some((claim) => claim.begin < end && claim.end > begin)
}

/** That a key is not there goes without saying before it was sent, and after it was given away or its life ended. */
function noteAbsence(key: Key, event: KeyEvent): void {
  const stored = [...key.events, ...key.maybe].filter(({ kind }) => kind === 'stored')
  if (stored.every(({ begin }) => begin > event.end)) return
  const isIssued = key.events.some(({ kind, end }) => kind === 'issued' && end < event.begin)
  const isOver = [...key.lives].every(({ stop }) => stop !== undefined && stop.end < event.begin)
  if (event.kind === 'absent' && (isIssued || isOver)) return
  key.events.push(event)
}

/** Keys that are issued although no claim was answered with them: each needs a claim without an answer. */
function notePhantoms(pool: Pool, violations: Violation[]): void {
  const phantoms = [...pool.keys.values()].filter(
    ({ events }) =>
      events.some(({ kind }) => kind === 'seen issued' || kind === 'already_issued') &&
      !events.some(({ kind }) => kind === 'issued'),
  )
  if (phantoms.length <= pool.unanswered.length || pool.unanswered.length === 0) return
  violations.push({
    rule: 'visible',
    text: `${phantoms.length} keys of ${describePool(pool)} are issued and no answer gave them, but only ${pool.unanswered.length} claims got no answer`,
    requests: pool.unanswered.map(({ n }) => n),
  })
}
