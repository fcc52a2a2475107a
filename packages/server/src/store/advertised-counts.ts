/**
 * The counts that the answer of a sync carried, by device, until the device presents the token of that answer
 * (pool/wake.ts). Only in memory, and bounded: a device whose entry is dropped is woken earlier, never later.
 */
import { LRUCache } from 'lru-cache'
import type { Algorithm } from '@latchkey/protocol'
import type { DeviceRef, Position } from '../session.ts'

export type Counts = ReadonlyMap<Algorithm, number>

/** About 300 bytes each. */
const MAX_DEVICES = 20_000

/** `Advertised` is the store's note of an answer. */
export class AdvertisedCounts<Advertised extends object = Counts> {
  readonly #byDevice = new LRUCache<DeviceRef, { readonly position: Position; readonly counts: Advertised }>({
    max: MAX_DEVICES,
  })

  /**
   * Notes the counts of an answer. The first of several answers with the same token is kept, because it is not known
   * which one arrived, and counts only fall until the device uploads or resets, which drops the entry.
   */
  note(device: DeviceRef, position: Position, counts: () => Advertised): void {
    if (this.#byDevice.get(device)?.position === position) return
    this.#byDevice.set(device, { position, counts: counts() })
  }

  /** The note of the answer whose token a device presents; undefined when there is none. */
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

  /** After an answer whose counts are acknowledged immediately. */
  forget(device: DeviceRef): void {
    this.#byDevice.delete(device)
  }
}
