/**
 * Checks one key: searches for an order of its events in which each answer is allowed by the key's state and no request
 * comes before another that had ended when it began. Otherwise returns a smallest set of requests that has none.
 *
 *     never -stored-> available -issued-> issued
 *                       |  ^  \--ended--> removed
 *              withdrawn|  |stored
 *                       v  |
 *                     withdrawn
 *
 * A device's own requests come before the end of their session. Possible events are tried wherever they may have
 * happened.
 */
import type { Rule, Violation } from './exchange.ts'
import { describePool, type Key, type KeyEvent, type KeyEventKind, type Session } from './facts.ts'

type State = 'never' | 'available' | 'issued' | 'withdrawn' | 'removed'

/** The state after an event; undefined if the event is impossible in this state. */
function after(state: State, kind: KeyEventKind): State | undefined {
  const only = (...allowed: readonly State[]): State | undefined =>
    allowed.includes(state) ? state : undefined
  switch (kind) {
    case 'stored':
      return only('never', 'withdrawn') && 'available'
    case 'issued':
      return only('available') && 'issued'
    case 'withdrawn':
      return only('available') && 'withdrawn'
    case 'ended':
      return state === 'available' ? 'removed' : state
    case 'already_stored':
    case 'seen available':
      return only('available')
    case 'already_issued':
    case 'seen issued':
      return only('issued')
    case 'already_removed':
      return only('removed')
    case 'absent':
      return only('never', 'issued', 'withdrawn', 'removed')
    case 'seen neither':
      return only('never', 'withdrawn', 'removed')
  }
}

/** Whether a consistent order of the events exists. */
function isConsistent(events: readonly KeyEvent[], maybe: readonly KeyEvent[]): boolean {
  const sorted = events.toSorted((a, b) => a.begin - b.begin)
  const failed = new Set<string>()
  const search = (state: State, left: readonly KeyEvent[], latestBegin: number): boolean => {
    if (left.length === 0) return true
    const name = `${state} ${latestBegin} ${left.map((event) => sorted.indexOf(event)).join()}`
    if (failed.has(name)) return false
    failed.add(name)
    const firstEnd = Math.min(...left.map(({ end }) => end))
    const isOver = (session: Session | undefined): boolean => {
      const end = sorted.find((event) => event.kind === 'ended' && event.session === session)
      return session !== undefined && end !== undefined && !left.includes(end)
    }
    for (const event of left) {
      if (event.begin > firstEnd) break
      const next = isOver(event.session) ? undefined : after(state, event.kind)
      if (next === undefined) continue
      const rest = left.filter((other) => other !== event)
      if (search(next, rest, Math.max(latestBegin, event.begin))) return true
    }
    return maybe.some(({ kind, begin, end, session }) => {
      const next = begin > firstEnd || latestBegin > end || isOver(session) ? undefined : after(state, kind)
      return next !== undefined && next !== state && search(next, left, Math.max(latestBegin, begin))
    })
  }
  return search('never', sorted, Number.NEGATIVE_INFINITY)
}

/** Undefined if the key's events are consistent. */
export function checkKey(key: Key): Violation | undefined {
  if (isConsistent(key.events, key.maybe)) return undefined
  let core: readonly KeyEvent[] = key.events
  for (const event of key.events) {
    if (event.kind === 'stored') continue
    const less = core.filter((other) => other !== event)
    if (!isConsistent(less, key.maybe)) core = less
  }
  const [id] = key.names.keys()
  const events = core
    .toSorted((a, b) => a.begin - b.begin)
    .map(({ kind, n, begin, end }) => `${kind} by #${n} [${begin}, ${end}]`)
  return {
    rule: brokenRule(core, key.maybe),
    text: `key ${id} (${key.material}) of ${describePool(key.pool)} cannot have been ${events.join(', ')}`,
    requests: [...new Set(core.map(({ n }) => n))],
  }
}

function brokenRule(core: readonly KeyEvent[], maybe: readonly KeyEvent[]): Rule {
  const stored = core.filter(({ kind }) => kind === 'stored')
  const rest = core.filter(({ kind }) => kind !== 'stored')
  const issued = rest.filter(({ kind }) => kind === 'issued')
  const has = (...kinds: readonly KeyEventKind[]): boolean => rest.some(({ kind }) => kinds.includes(kind))
  if (issued.length > 1) return 'issued once'
  if (has('seen available', 'seen issued', 'seen neither')) return 'visible'
  const sent = [...stored, ...maybe.filter(({ kind }) => kind === 'stored')]
  if (issued.length === 1 && sent.every(({ begin }) => begin > (issued[0]?.end ?? 0))) return 'uploaded'
  if (stored.length > 1) return 'stored once'
  if (issued.length === 1 && has('withdrawn', 'absent', 'ended')) return 'removed'
  return 'outcome'
}
