/** Rules about counts, digests and versions: an answer's numbers were true at some moment of its request. */
import { createHash } from 'node:crypto'
import type { Violation } from './exchange.ts'
import { describePool, type Device, type Key, type Pool, type PoolSnapshot } from './facts.ts'
import type { Presence } from './presence.ts'

/** Compares a device's answers with the keys of one of its pools. */
export function checkCounts(pool: Pool, presences: readonly Presence[]): Violation[] {
  const violations: Violation[] = []
  const waiting = presences.toSorted((a, b) => a.possible.from - b.possible.from)
  let entered = 0
  let active: Presence[] = []
  for (const snapshot of pool.device.snapshots.toSorted((a, b) => a.begin - b.begin)) {
    for (
      let next = waiting[entered];
      next !== undefined && next.possible.from < snapshot.end;
      next = waiting[++entered]
    ) {
      active.push(next)
    }
    active = active.filter(({ possible }) => possible.to > snapshot.begin)
    const violation = checkSnapshot(pool, active, snapshot)
    if (violation !== undefined) violations.push(violation)
  }
  return violations
}

function checkSnapshot(
  pool: Pool,
  active: readonly Presence[],
  snapshot: PoolSnapshot,
): Violation | undefined {
  const possible = active.filter((presence) => mayCount(presence, snapshot))
  const certain = possible.filter((presence) => mustCount(presence, snapshot))
  const count = snapshot.counts.get(pool.algorithm) ?? 0
  const subject = `an answer of ${describePool(pool)}`
  if (count < certain.length || count > possible.length) {
    const text = `${subject} counts ${count} keys; there were ${certain.length} to ${possible.length}`
    return { rule: 'count', text, requests: [snapshot.n] }
  }
  if (certain.length !== possible.length || certain.some(({ key }) => key.names.size > 1)) return undefined
  const digest = snapshot.digest.get(pool.algorithm)
  if (digest === undefined || digest === digestOf(pool, certain)) return undefined
  return {
    rule: 'count',
    text: `${subject} has a digest that does not match the keys available`,
    requests: [snapshot.n],
  }
}

function mayCount({ key, possible, upload }: Presence, { begin, end, withdrawn }: PoolSnapshot): boolean {
  return possible.from < end && possible.to > begin && !(upload !== undefined && withdrawn.has(key.material))
}

/** Keys that the request itself stored were available when it counted. */
function mustCount(presence: Presence, { begin, end, stored }: PoolSnapshot): boolean {
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

/** Versions and generations never decrease, and there is one epoch. */
export function checkVersions({ user, id, snapshots }: Device): Violation[] {
  const byEnd = snapshots.toSorted((a, b) => a.end - b.end)
  const [first] = byEnd
  let i = 0
  let version: PoolSnapshot | undefined
  let generation: PoolSnapshot | undefined
  for (const snapshot of snapshots.toSorted((a, b) => a.begin - b.begin)) {
    for (let next = byEnd[i]; next !== undefined && next.end < snapshot.begin; next = byEnd[++i]) {
      if (version === undefined || next.version > version.version) version = next
      if (generation === undefined || next.generation > generation.generation) generation = next
    }
    const text =
      snapshot.epoch !== first?.epoch
        ? 'another epoch'
        : snapshot.version < (version?.version ?? 0)
          ? `version ${snapshot.version} after ${version?.version}`
          : snapshot.generation < (generation?.generation ?? 0)
            ? `generation ${snapshot.generation} after ${generation?.generation}`
            : undefined
    if (text !== undefined) {
      const requests = [version?.n, generation?.n, snapshot.n].filter((n) => n !== undefined)
      return [
        { rule: 'version', text: `an answer of ${user} ${id} has ${text}`, requests: [...new Set(requests)] },
      ]
    }
  }
  return []
}
