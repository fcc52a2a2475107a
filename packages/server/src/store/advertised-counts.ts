/**
 * The counts that the answer of a sync carried, by device, until a request shows by its token that the answer arrived
 * (pool/wake.ts). Only in memory, and bounded: a device whose entry is dropped is woken earlier, never later.
 */
import { LRUCache } from 'lru-cache'
import type { Algorithm } from '@latchkey/protocol'
import type { DeviceRef, Position } from '../session.ts'

export type Counts = ReadonlyMap<Algorithm, number>

/** About 300 bytes each. */
const MAX_DEVICES = 20_000

/** `Advertised`: what a store notes of an answer. */
export class AdvertisedCounts<Advertised extends object = Counts> {
  readonly #byDevice = new LRUCache<DeviceRef, { readonly position: Position; readonly counts: Advertised }>({
    max: MAX_DEVICES,
  })

  /**
   * Notes what an answer carries. Of several answers with one token it is unknown which arrived: the first one counts,
   * because counts only fall until the device uploads or resets, which drops the entry.
   */
  note(device: DeviceRef, position: Position, counts: () => Advertised): void {
    if (this.#byDevice.get(device)?.position === position) return
    this.#byDevice.set(device, { position, counts: counts() })
  }

  /** What was noted of the answer whose token a device presents; undefined when that is not known. */
  take(device: DeviceRef, position: Position): Advertised | undefined {
    const noted = this.#byDevice.get(device)
    if (noted?.position !== position) return undefined
    this.#byDevice.delete(device)
    return noted.counts
  }

  /** The database may have been replaced by an older copy. */
  forgetAll(): void {
    this.#byDevice.clear()
  }

  /** After an answer whose counts are acknowledged at once. */
  forget(device: DeviceRef): void {
    this.#byDevice.delete(device)
  }
}
