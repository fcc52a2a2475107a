/**
 * The pool as a queue: order, and no false miss. A queue's history is linearizable exactly if nothing comes out that did
 * not go in, nothing comes out twice (both: explain-key.ts), nothing overtakes what was surely in before it, and nothing is
 * found empty while it is surely not (Henzinger, Sezgin, Vafeiadis: "Aspect-oriented linearizability proofs", 2013).
 */
import type { Span, Violation } from './exchange.ts'
import { describePool, type Pool } from './facts.ts'
import type { Presence } from './presence.ts'

export function judgeOrder(pool: Pool, presences: readonly Presence[]): Violation[] {
  const overtaken = overtakenBetweenUploads(presences) ?? overtakenWithinUpload(presences)
  if (overtaken === undefined) return []
  const { early, late } = overtaken
  const nameOf = ({ key }: Presence): string | undefined => key.names.keys().next().value
  const requests = [early.upload, late.upload, late.issued?.n, early.issued?.n]
  return [
    {
      rule: 'order',
      text: `${nameOf(late)} of ${describePool(pool)} left before ${nameOf(early)}, which was uploaded before it and was still there`,
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

/** Within one upload keys stand in the order of their IDs. */
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

/** Claims that got a fallback key or nothing while, at each moment of them, some key was there for certain. */
export function judgeMisses(pool: Pool, presences: readonly Presence[]): Violation[] {
  const filled = merged(presences.flatMap(({ certain }) => certain))
  const fallbacks = new Set(pool.fallbacks.map(({ material }) => material))
  return pool.claims.flatMap((claim) => {
    if (claim.key !== undefined && !fallbacks.has(claim.key.material)) return []
    const period = filled.find(({ from, to }) => from < claim.begin && to > claim.end)
    if (period === undefined) return []
    const witness = presences.find(({ certain }) =>
      certain.some(({ from, to }) => from < claim.begin && to > claim.begin),
    )
    const got = claim.key === undefined ? 'nothing' : 'the fallback key'
    return [
      {
        rule: 'miss' as const,
        text: `a claim of ${describePool(pool)} got ${got} although a one-time key was there all the time (first ${witness && idOf(witness)})`,
        requests: [witness?.key.events.find(({ kind }) => kind === 'stored')?.n, claim.n].filter(
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
    // Moments are whole numbers and all different, so periods that only touch leave a gap.
    if (last !== undefined && from < last.to) last.to = Math.max(last.to, to)
    else result.push({ from, to })
  }
  return result
}

/** A fallback key comes from the pool's own device, is the current one, and is given when there is nothing else. */
export function judgeFallbacks(pool: Pool): Violation[] {
  return pool.claims.flatMap((claim) => {
    const why =
      claim.key === undefined
        ? wasThere(pool, claim)
        : pool.keys.has(claim.key.material)
          ? undefined
          : cannotBeCurrent(pool, claim, claim.key.material)
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

type Why = { readonly text: string; readonly n: number }

function wasThere(pool: Pool, claim: Span): Why | undefined {
  const found = pool.fallbacks.find(
    ({ end, life, outcome }) =>
      (outcome === 'stored' || outcome === 'already_stored') &&
      end < claim.begin &&
      (life.stop?.begin ?? Number.POSITIVE_INFINITY) > claim.end,
  )
  return found && { text: 'got nothing although there was a fallback key', n: found.n }
}

function cannotBeCurrent(pool: Pool, claim: Span, material: string): Why | undefined {
  const own = pool.fallbacks.filter(
    (fallback) => fallback.material === material && fallback.begin < claim.end,
  )
  const [first] = own
  if (first === undefined) {
    const later = pool.fallbacks.find((fallback) => fallback.material === material)
    // That nobody ever uploaded it is for rule "uploaded" to say.
    return later && { text: 'got a fallback key that was uploaded only after it', n: later.n }
  }
  if (own.every(({ life }) => (life.stop?.end ?? Number.POSITIVE_INFINITY) < claim.begin)) {
    return { text: 'got the fallback key of a device that had been logged out', n: first.n }
  }
  const lastEnd = Math.max(...own.map(({ end, outcome }) => (outcome === 'already_replaced' ? 0 : end)))
  const newer = pool.fallbacks.find(
    ({ begin, end, outcome, material: other }) =>
      other !== material && outcome === 'stored' && begin > lastEnd && end < claim.begin,
  )
  return newer && { text: 'got a fallback key that had been replaced', n: newer.n }
}
