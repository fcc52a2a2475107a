/**
 * The counts that the answer of a sync carried, by device, until a request shows by its token that the answer arrived
 * (pool/wake.ts). Only in memory, and bounded: a device whose offer is lost is woken earlier, never later.
 */
import { LRUCache } from 'lru-cache'
import type { Algorithm } from '@latchkey/protocol'
import type { DeviceRef, Position } from '../session.ts'

export type Counts = ReadonlyMap<Algorithm, number>

/** About 300 bytes each. */
const MAX_OFFERS = 20_000

/** `Offer`: what a store notes of an answer. */
export class Offers<Offer extends object = Counts> {
  readonly #byDevice = new LRUCache<DeviceRef, { readonly position: Position; readonly offer: Offer }>({
    max: MAX_OFFERS,
  })

  /**
   * Notes what an answer carries. Of several with one token it is unknown which arrived: the first one stands, because
   * counts only fall until the device uploads or resets, which ends the offer.
   */
  make(device: DeviceRef, position: Position, offer: () => Offer): void {
    if (this.#byDevice.get(device)?.position === position) return
    this.#byDevice.set(device, { position, offer: offer() })
  }

  /** What was noted of the answer whose token a device presents; undefined when that is not known (any more). */
  take(device: DeviceRef, position: Position): Offer | undefined {
    const made = this.#byDevice.get(device)
    if (made?.position !== position) return undefined
    this.#byDevice.delete(device)
    return made.offer
  }

  /** The database may be another than what is remembered of it. */
  forgetAll(): void {
    this.#byDevice.clear()
  }

  /** After an answer that told at once. */
  forget(device: DeviceRef): void {
    this.#byDevice.delete(device)
  }
}
