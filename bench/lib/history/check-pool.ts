/**
 * Checks the pool as a queue: order and false misses. A queue's history is linearizable exactly if nothing is dequeued
 * that was not enqueued, nothing is dequeued twice (both: check-key.ts), nothing overtakes an element that was
 * certainly enqueued before it, and no dequeue finds the queue empty while it certainly is not (Henzinger, Sezgin,
 * Vafeiadis: "Aspect-oriented linearizability proofs", 2013).
 */
import type { Span, Violation } from './exchange.ts'
import { describePool, type Pool } from './facts.ts'
import type { Presence } from './presence.ts'

export function checkOrder(pool: Pool, presences: readonly Presence[]): Violation[] {
  const overtaken = overtakenBetweenUploads(presences) ?? overtakenWithinUpload(presences)
  if (overtaken === undefined) return []
  const { early, late } = overtaken
  const nameOf = ({ key }: Presence): string | undefined => key.names.keys().next().value
  const requests = [early.upload, late.upload, late.issued?.n, early.issued?.n]
  return [
    {
      rule: 'order',
      text: `${nameOf(late)} of ${describePool(pool)} was issued before ${nameOf(early)}, which was uploaded before it and was still available`,
      requests: requests.filter((n) => n !== undefined),
    },
  ]
}

type Overtaken = { readonly early: Presence; readonly late: Presence }

function overtakenBetweenUploads(presences: readonly Presence[]): Overtaken | undefined {
  const byEntry = presences.toSorted((a, b) => a.enteredBy - b.enteredBy)
  const claimed = presences.filter(({ issued }) => issued !== undefined)
  let i = 0
  let longest: Presence | undefined
  for (const late of claimed.toSorted((a, b) => a.enteredFrom - b.enteredFrom)) {
    for (
      let next = byEntry[i];
      next !== undefined && next.enteredBy < late.enteredFrom;
      next = byEntry[++i]
    ) {
      if (longest === undefined || next.stayedUntil > longest.stayedUntil) longest = next
    }
    if (longest !== undefined && late.issued !== undefined && late.issued.end < longest.stayedUntil) {
      return { early: longest, late }
    }
  }
  return undefined
}

/** The keys of one upload are ordered by their IDs. */
function overtakenWithinUpload(presences: readonly Presence[]): Overtaken | undefined {
  const single = presences.filter(({ key, upload }) => upload !== undefined && key.names.size === 1)
  for (const together of Map.groupBy(single, ({ upload }) => upload).values()) {
    const ordered = together.toSorted((a, b) => (idOf(a) < idOf(b) ? -1 : 1))
    let longest: Presence | undefined
    for (const late of ordered) {
      if (longest !== undefined && late.issued !== undefined && late.issued.end < longest.stayedUntil) {
        return { early: longest, late }
      }
      if (longest === undefined || late.stayedUntil > longest.stayedUntil) longest = late
    }
  }
  return undefined
}

function idOf({ key }: Presence): string {
  return key.names.keys().next().value ?? ''
}

/** Claims that returned a fallback key or nothing while, at each of their moments, some key was certainly available. */
export function checkMisses(pool: Pool, presences: readonly Presence[]): Violation[] {
  const filled = merged(presences.flatMap(({ certain }) => certain))
  const fallbacks = new Set(pool.fallbacks.map(({ material }) => material))
  return pool.claims.flatMap((claim) => {
    if (claim.key !== undefined && !fallbacks.has(claim.key.material)) return []
    const period = filled.find(({ from, to }) => from < claim.begin && to > claim.end)
    if (period === undefined) return []
    const available = presences.find(({ certain }) =>
      certain.some(({ from, to }) => from < claim.begin && to > claim.begin),
    )
    const got = claim.key === undefined ? 'nothing' : 'the fallback key'
    return [
      {
        rule: 'false miss' as const,
        text: `a claim of ${describePool(pool)} got ${got} although a one-time key was available all the time (first ${available && idOf(available)})`,
        requests: [available?.key.events.find(({ kind }) => kind === 'stored')?.n, claim.n].filter(
          (n) => n !== undefined,
        ),
      },
    ]
  })
}

type Period = { readonly from: number; readonly to: number }

function merged(periods: readonly Period[]): Period[] {
  const result: { from: number; to: number }[] = []
  for (const { from, to } of periods.toSorted((a, b) => a.from - b.from)) {
    const last = result.at(-1)
    // Moments are distinct integers, so periods that only touch leave a gap.
    if (last !== undefined && from < last.to) last.to = Math.max(last.to, to)
    else result.push({ from, to })
  }
  return result
}

/** A claimed fallback key is the current one of the pool's device, and a claim of an empty pool returns it. */
export function checkFallbacks(pool: Pool): Violation[] {
  return pool.claims.flatMap((claim) => {
    const why =
      claim.key === undefined
        ? missedFallback(pool, claim)
        : pool.keys.has(claim.key.material)
          ? undefined
          : notCurrent(pool, claim, claim.key.material)
    return why === undefined
      ? []
      : [
          {
            rule: 'fallback' as const,
            text: `a claim of ${describePool(pool)} ${why.text}`,
            requests: [why.n, claim.n],
          },
        ]
  })
}

type Fault = { readonly text: string; readonly n: number }

function missedFallback(pool: Pool, claim: Span): Fault | undefined {
  const found = pool.fallbacks.find(
    ({ end, session, outcome }) =>
      (outcome === 'stored' || outcome === 'already_stored') &&
      end < claim.begin &&
      (session.stop?.begin ?? Number.POSITIVE_INFINITY) > claim.end,
  )
  return found && { text: 'got nothing although there was a fallback key', n: found.n }
}

function notCurrent(pool: Pool, claim: Span, material: string): Fault | undefined {
  const own = pool.fallbacks.filter(
    (fallback) => fallback.material === material && fallback.begin < claim.end,
  )
  const [first] = own
  if (first === undefined) {
    const later = pool.fallbacks.find((fallback) => fallback.material === material)
    // Rule "uploaded" reports a key that was never uploaded.
    return later && { text: 'got a fallback key that was uploaded after the claim', n: later.n }
  }
  if (own.every(({ session }) => (session.stop?.end ?? Number.POSITIVE_INFINITY) < claim.begin)) {
    return { text: 'got the fallback key of a session that had ended', n: first.n }
  }
  const lastEnd = Math.max(...own.map(({ end, outcome }) => (outcome === 'already_replaced' ? 0 : end)))
  const newer = pool.fallbacks.find(
    ({ begin, end, outcome, material: other }) =>
      other !== material && outcome === 'stored' && begin > lastEnd && end < claim.begin,
  )
  return newer && { text: 'got a fallback key that had been replaced', n: newer.n }
}
