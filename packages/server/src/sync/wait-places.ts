/**
 * Bounds of the syncs that wait: per device, per user and in total. Above the bound of a device or user its oldest sync
 * is answered, but not before it has waited for some seconds: a client that asks again at once would otherwise never
 * rest. At twice the bound a sync is refused. When all places are taken, the user with the most waiting syncs gives
 * way, so that no account can keep others from waiting. Issue 11, C5.
 */
import { limitExceeded, type MatrixError, unavailable } from '../matrix-error.ts'
import type { DeviceRef, UserRef } from '../session.ts'

export type WaitLimits = {
  readonly waitingSyncs: number
  readonly waitingSyncsPerUser: number
  readonly waitingSyncsPerDevice: number
}

/** A sync that waits or wants to. */
export type WaitingSync = {
  readonly deviceRef: DeviceRef
  readonly userRef: UserRef
  /** Ends its wait when it has lasted this long, at once if it already has. */
  readonly endAfter: (ms: number) => void
}

/** Waiting syncs of a device or user, the oldest first. */
type Group = {
  readonly all: Set<WaitingSync>
  /** Those that do not give way to a newer one. */
  readonly staying: Set<WaitingSync>
}

function newGroup(): Group {
  return { all: new Set(), staying: new Set() }
}

/** The shortest wait of a sync that gives way to a newer one of its own device or user. */
export const SHORTEST_WAIT_MS = 5_000

export class WaitPlaces {
  readonly #limits: WaitLimits
  readonly #byDevice = new Map<DeviceRef, Group>()
  readonly #byUser = new Map<UserRef, Group>()
  #count = 0

  constructor(limits: WaitLimits) {
    this.#limits = limits
  }

  /** Waiting syncs. */
  get count(): number {
    return this.#count
  }

  /**
   * Takes a place.
   *
   * @throws {MatrixError} 429 when the device or the user has twice as many as it may have, 503 when there is no place.
   */
  take(sync: WaitingSync): void {
    const ofDevice = this.#byDevice.get(sync.deviceRef) ?? newGroup()
    const ofUser = this.#byUser.get(sync.userRef) ?? newGroup()
    const { waitingSyncsPerDevice: perDevice, waitingSyncsPerUser: perUser } = this.#limits
    if (ofDevice.all.size >= 2 * perDevice) throw tooMany('device', perDevice)
    if (ofUser.all.size >= 2 * perUser) throw tooMany('account', perUser)
    if (this.#count >= this.#limits.waitingSyncs) this.#freePlace(ofUser.all.size)
    if (ofDevice.staying.size >= perDevice) this.#giveWay(ofDevice)
    if (ofUser.staying.size >= perUser) this.#giveWay(ofUser)
    for (const group of [ofDevice, ofUser]) {
      group.all.add(sync)
      group.staying.add(sync)
    }
    this.#byDevice.set(sync.deviceRef, ofDevice)
    this.#byUser.set(sync.userRef, ofUser)
    this.#count++
  }

  leave(sync: WaitingSync): void {
    if (this.#byUser.get(sync.userRef)?.all.has(sync) !== true) return
    remove(this.#byDevice, sync.deviceRef, sync)
    remove(this.#byUser, sync.userRef, sync)
    this.#count--
  }

  #giveWay({ staying: [oldest] }: Group): void {
    if (oldest === undefined) return
    this.#byDevice.get(oldest.deviceRef)?.staying.delete(oldest)
    this.#byUser.get(oldest.userRef)?.staying.delete(oldest)
    oldest.endAfter(SHORTEST_WAIT_MS)
  }

  /** @param own waiting syncs of the user who needs a place */
  #freePlace(own: number): void {
    let heaviest: ReadonlySet<WaitingSync> = new Set()
    for (const { all } of this.#byUser.values()) if (all.size > heaviest.size) heaviest = all
    const [oldest] = heaviest
    if (oldest === undefined || heaviest.size <= own + 1)
      throw unavailable('Too many syncs are waiting on this server; try again later.', SHORTEST_WAIT_MS)
    oldest.endAfter(0)
  }
}

function remove<Ref>(groups: Map<Ref, Group>, ref: Ref, sync: WaitingSync): void {
  const group = groups.get(ref)
  group?.all.delete(sync)
  group?.staying.delete(sync)
  if (group?.all.size === 0) groups.delete(ref)
}

function tooMany(owner: string, limit: number): MatrixError {
  return limitExceeded(
    `This ${owner} has more than ${limit} syncs waiting; wait for an answer before the next sync.`,
    SHORTEST_WAIT_MS,
  )
}
