/**
 * The storage of the key pools in memory (server/src/pool/port.ts), and the little of the other ports that histories
 * of the pools need: log in, removal of a device, the pools of a sync. Every decision runs twice on the same facts,
 * and both runs must agree: a decision that changes its facts, or that depends on anything else, fails here.
 */
import assert from 'node:assert/strict'
import { compareCodePoints, type DeviceId, mixIn, type UserId } from '@latchkey/protocol'
import type { Account, AccountStore, NewSession } from '../../server/src/accounts/port.ts'
import type { DeviceStore } from '../../server/src/devices/port.ts'
import { unknownToken } from '../../server/src/matrix-error.ts'
import { chooseKey } from '../../server/src/pool/claim.ts'
import type {
  ClaimCommand,
  ClaimedKey,
  ClaimResult,
  ClaimTarget,
  InspectedKey,
  PoolInspection,
  PoolStatus,
} from '../../server/src/pool/commands.ts'
import { budgetFor, type DepletionDefence } from '../../server/src/pool/depletion.ts'
import { DevicePools } from '../../server/src/pool/device-pools.ts'
import { pagesFrom, readCursor, writeCursor } from '../../server/src/pool/issued-pages.ts'
import { keyHash, shareOf } from '../../server/src/pool/key.ts'
import type { PoolPolicy } from '../../server/src/pool/policy.ts'
import type { Decide, Decision, PoolStore, WantedFacts } from '../../server/src/pool/port.ts'
import { REMOVAL_PURGE } from '../../server/src/pool/purge.ts'
import { reachedLowWater } from '../../server/src/pool/wake.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../server/src/session.ts'
import type { SyncQuery } from '../../server/src/sync/port.ts'
import {
  availableIn,
  loadFacts,
  type LoggedKey,
  type MemoryDevice,
  type MemoryPool,
  newMemoryDevice,
  saveChanges,
} from './memory-device.ts'

type Owned = MemoryDevice & {
  readonly ref: DeviceRef
  readonly userId: UserId
  readonly deviceId: DeviceId
  removed: boolean
  tokens: Set<TokenHash>
}

const NOTHING_WANTED: WantedFacts = {
  oneTimeKeys: [],
  fallbackKeys: [],
  available: [],
  keysPerPool: Number.POSITIVE_INFINITY,
}

export class MemoryPoolStore implements PoolStore {
  readonly #policy: PoolPolicy
  readonly #depletion: DepletionDefence | undefined
  readonly #devices: Owned[] = []
  readonly #users: UserId[] = []

  constructor(policy: PoolPolicy, depletion?: DepletionDefence) {
    this.#policy = policy
    this.#depletion = depletion
  }

  async change<Answer>(
    session: Session,
    wanted: WantedFacts,
    decide: Decide<Answer>,
  ): Promise<Decision<Answer>> {
    const device = this.#prove(session)
    const facts = loadFacts(device, wanted)
    const decision = decide(facts)
    assert.deepEqual(decide(facts), decision, 'the same facts give the same decision')
    saveChanges(device, decision.changes)
    this.#shareBudgets(device)
    return decision
  }

  async claim(command: ClaimCommand): Promise<ClaimResult> {
    return command.targets.map((target) => this.#claimOne(command, target))
  }

  async inspect(
    session: Session,
    { limit, from }: { readonly limit: number; readonly from?: string },
  ): Promise<PoolInspection> {
    const device = this.#prove(session)
    const pools = sortedPools(device)
    const cursor = readCursor(from)
    const rows = pagesFrom(
      pools.map((_, i) => i),
      cursor,
    ).flatMap(({ pool, place }) => issuedIn(pools[pool], place).map((row) => ({ ...row, pool })))
    const page = rows.slice(0, limit)
    const last = page.at(-1)
    return {
      status: statusOf(device),
      pools: pools.map((pool, i) => ({
        algorithm: pool.algorithm,
        available: this.#inIssueOrder(pool).map((entry) => inspected(entry, entry.ts)),
        issued: page.filter((row) => row.pool === i).map((row) => inspected(row, row.leftTs)),
        ...(pool.fallback && {
          fallback: {
            keyId: pool.fallback.key.keyId,
            keyHash: keyHash(pool.fallback.key.material),
            used: pool.fallback.used,
            issueCount: pool.fallback.issueCount,
          },
        }),
      })),
      ...(rows.length > limit && last && { nextBatch: writeCursor({ pool: last.pool, place: last.place }) }),
    }
  }

  /** How often a session's device was woken for its own keys. */
  signalsOf(session: Session): number {
    return this.#prove(session).signals
  }

  /** The pools as a sync shows them. */
  statusFor(session: Session): PoolStatus {
    return statusOf(this.#prove(session))
  }

  user(userId: UserId): Account | undefined {
    const userRef = this.#users.indexOf(userId)
    return userRef === -1 ? undefined : { userRef: userRef as UserRef, userId, passwordHash: '' }
  }

  addUser(userId: UserId): Account {
    const userRef = (this.#users.push(userId) - 1) as UserRef
    return { userRef, userId, passwordHash: '' }
  }

  openSession({ account: { userRef, userId }, deviceId, tokenHash }: NewSession): Session {
    let device = this.#devices.find((one) => one.userId === userId && one.deviceId === deviceId)
    if (device === undefined) {
      const ref = this.#devices.length as DeviceRef
      device = { ...newMemoryDevice(), ref, userId, deviceId, removed: false, tokens: new Set() }
      this.#devices.push(device)
      this.#shareBudgets(this.#devices.find((one) => one.userId === userId) ?? device)
    }
    device.removed = false
    device.tokens = new Set([tokenHash])
    return { tokenHash, userRef, userId, deviceRef: device.ref, deviceId }
  }

  /** The memory of a removed device's pools stays. */
  remove(session: Session, deviceIds: readonly DeviceId[], now: number): void {
    const { userId } = this.#prove(session)
    for (const device of this.#devices) {
      if (device.removed || device.userId !== userId || !deviceIds.includes(device.deviceId)) continue
      const pools = new DevicePools(loadFacts(device, NOTHING_WANTED))
      pools.purge(REMOVAL_PURGE)
      const change = pools.changes({ left: true, signal: false, now })
      saveChanges(device, change === undefined ? {} : { pools: change })
      Object.assign(device, {
        removed: true,
        refused: undefined,
        tokens: new Set(),
        deviceKeys: undefined,
        identity: {},
        identityChanged: false,
        formerIdentities: [],
        replays: new Map(),
      })
    }
  }

  /** The devices of a user have daily budgets together. */
  #shareBudgets({ userId, counts: { user_keys, user_bytes } }: Owned): void {
    for (const device of this.#devices)
      if (device.userId === userId) device.counts = { ...device.counts, user_keys, user_bytes }
  }

  #prove({ deviceRef, tokenHash }: Session): Owned {
    const device = this.#devices[deviceRef]
    if (device === undefined || device.removed || !device.tokens.has(tokenHash)) throw unknownToken()
    return device
  }

  #claimOne({ claimer, now }: ClaimCommand, target: ClaimTarget): ClaimedKey | null | undefined {
    const { userId, deviceId, algorithm } = target
    const device = this.#devices.find(
      (one) => !one.removed && one.userId === userId && one.deviceId === deviceId,
    )
    const pool = device?.pools.get(algorithm)
    if (device === undefined || pool === undefined) return undefined
    const { fallback } = pool
    const next = this.#inIssueOrder(pool)[0]
    const kind = chooseKey(
      { available: pool.count, filled: pool.filled, hasFallback: fallback !== undefined },
      budgetFor(this.#depletion, claimer, device.ref, now),
    )
    if (kind === 'none') return undefined
    if (kind === 'withheld') return null
    device.version++
    if (kind === 'one_time_key') {
      assert.ok(next)
      issue(device, pool, next, now)
      return { keyId: next.key.keyId, json: next.key.json, fallback: false, rateLimited: false }
    }
    assert.ok(fallback)
    if (!fallback.used) device.signals++
    fallback.used = true
    fallback.issueCount++
    const { keyId, json } = fallback.key
    return { keyId, json, fallback: true, rateLimited: kind === 'rate_limited' }
  }

  #inIssueOrder(pool: MemoryPool): ReturnType<typeof availableIn> {
    const available = availableIn(pool)
    if (this.#policy.claimOrder === 'upload') return available
    return available.sort((a, b) => compareCodePoints(a.key.keyId, b.key.keyId))
  }
}

function issue(
  device: MemoryDevice,
  pool: MemoryPool,
  { place, key }: ReturnType<typeof availableIn>[number],
  now: number,
): void {
  Object.assign(pool.log[place] ?? {}, { state: 'issued', leftTs: now })
  pool.count--
  mixIn(pool.digest, shareOf(pool.algorithm, key.keyId, key.material))
  if (!reachedLowWater(pool.acknowledged, pool.count)) return
  pool.acknowledged = pool.count
  device.signals++
}

function sortedPools(device: MemoryDevice): MemoryPool[] {
  return [...device.pools.values()].sort((a, b) => compareCodePoints(a.algorithm, b.algorithm))
}

/** The last uploaded first. */
function issuedIn(pool: MemoryPool | undefined, before: number): (LoggedKey & { readonly place: number })[] {
  return (pool?.log ?? [])
    .map((entry, place) => ({ ...entry, place }))
    .filter(({ state, place }) => state === 'issued' && place >= (pool?.firstShown ?? 0) && place < before)
    .reverse()
}

function inspected({ key }: LoggedKey, ts: number): InspectedKey {
  return { keyId: key.keyId, keyHash: keyHash(key.material), ts }
}

function statusOf(device: MemoryDevice): PoolStatus {
  return new DevicePools(loadFacts(device, NOTHING_WANTED)).status()
}

/** The part of a store that histories of the pools need. */
export type PoolHistoryStore = {
  readonly pools: PoolStore
  readonly accounts: Pick<AccountStore, 'create' | 'find' | 'openSession'>
  readonly devices: Pick<DeviceStore, 'remove'>
  readonly sync: { read(session: Session, query: SyncQuery): Promise<{ readonly pools: PoolStatus }> }
}

export function memoryStore(
  policy: PoolPolicy,
  depletion?: DepletionDefence,
): PoolHistoryStore & { readonly pools: MemoryPoolStore } {
  const pools = new MemoryPoolStore(policy, depletion)
  return {
    pools,
    accounts: {
      create: async ({ userId }) => pools.addUser(userId),
      find: async (userId) => pools.user(userId),
      openSession: async (session) => pools.openSession(session),
    },
    devices: {
      remove: async (session, deviceIds, now) => pools.remove(session, deviceIds, now),
    },
    sync: { read: async (session) => ({ pools: pools.statusFor(session) }) },
  }
}
