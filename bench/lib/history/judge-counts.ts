/** Counts, digests and versions: whether an answer's numbers were true at some moment between its request and itself. */
import { createHash } from 'node:crypto'
import type { Violation } from './exchange.ts'
import { describePool, type Device, type Key, type Pool, type Standing } from './facts.ts'
import type { Presence } from './presence.ts'

/** Answers of a device, against the keys of one of its pools. */
export function judgeCounts(pool: Pool, presences: readonly Presence[]): Violation[] {
  const violations: Violation[] = []
  const waiting = presences.toSorted((a, b) => a.possible.from - b.possible.from)
  let entered = 0
  let active: Presence[] = []
  for (const standing of pool.device.standings.toSorted((a, b) => a.begin - b.begin)) {
    for (
      let next = waiting[entered];
      next !== undefined && next.possible.from < standing.end;
      next = waiting[++entered]
    ) {
      active.push(next)
    }
    active = active.filter(({ possible }) => possible.to > standing.begin)
    const violation = judgeOne(pool, active, standing)
    if (violation !== undefined) violations.push(violation)
  }
  return violations
}

function judgeOne(pool: Pool, active: readonly Presence[], standing: Standing): Violation | undefined {
  const possible = active.filter((presence) => mayCount(presence, standing))
  const certain = possible.filter((presence) => mustCount(presence, standing))
  const count = standing.counts.get(pool.algorithm) ?? 0
  const said = `an answer of ${describePool(pool)}`
  if (count < certain.length || count > possible.length) {
    const text = `${said} counts ${count} keys; there were ${certain.length} to ${possible.length}`
    return { rule: 'count', text, requests: [standing.n] }
  }
  if (certain.length !== possible.length || certain.some(({ key }) => key.names.size > 1)) return undefined
  const digest = standing.digest.get(pool.algorithm)
  if (digest === undefined || digest === digestOf(pool, certain)) return undefined
  return {
    rule: 'count',
    text: `${said} has the digest of other keys than there were`,
    requests: [standing.n],
  }
}

function mayCount({ key, possible, upload }: Presence, { begin, end, withdrawn }: Standing): boolean {
  return possible.from < end && possible.to > begin && !(upload !== undefined && withdrawn.has(key.material))
}

/** What the request itself stored was there when it counted. */
function mustCount(presence: Presence, { begin, end, stored }: Standing): boolean {
  if (stored.has(presence.key.material)) return presence.stayedUntil > end
  return presence.certain.some(({ from, to }) => from < begin && to > end)
}

function digestOf(pool: Pool, presences: readonly Presence[]): string {
  const digest = Buffer.alloc(32)
  for (const { key } of presences)
    for (const [i, byte] of hashOf(pool, key).entries()) digest[i] = (digest[i] ?? 0) ^ byte
  return digest.toString('base64url')
}

function hashOf(pool: Pool, { names, material }: Key): Buffer {
  const [id] = names.keys()
  return createHash('sha256').update(`${pool.algorithm}:${id}\0${material}`).digest()
}

/** Versions and generations never go back, and there is one epoch. */
export function judgeVersions({ user, id, standings }: Device): Violation[] {
  const byEnd = standings.toSorted((a, b) => a.end - b.end)
  const [first] = byEnd
  let i = 0
  let version: Standing | undefined
  let generation: Standing | undefined
  for (const standing of standings.toSorted((a, b) => a.begin - b.begin)) {
    for (let next = byEnd[i]; next !== undefined && next.end < standing.begin; next = byEnd[++i]) {
      if (version === undefined || next.version > version.version) version = next
      if (generation === undefined || next.generation > generation.generation) generation = next
    }
    const text =
      standing.epoch !== first?.epoch
        ? 'another epoch'
        : standing.version < (version?.version ?? 0)
          ? `version ${standing.version} after ${version?.version}`
          : standing.generation < (generation?.generation ?? 0)
            ? `generation ${standing.generation} after ${generation?.generation}`
            : undefined
    if (text !== undefined) {
      const requests = [version?.n, generation?.n, standing.n].filter((n) => n !== undefined)
      return [
        { rule: 'version', text: `an answer of ${user} ${id} has ${text}`, requests: [...new Set(requests)] },
      ]
    }
  }
  return []
}
