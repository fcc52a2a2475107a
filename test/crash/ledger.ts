/**
 * The acknowledged and the possible effects of the clients' requests in a crash test; a request without an answer may
 * have been executed. Compared with the server after each kill.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

/** The pool as the device reads it: hashes of key material. */
export type PoolView = { readonly available: ReadonlySet<string>; readonly issued: ReadonlySet<string> }

export class Ledger {
  /** Materials whose upload or replacement was acknowledged as stored, by device. */
  readonly #stored = new Map<string, Set<string>>()
  readonly #issued = new Set<string>()
  readonly #withdrawn = new Set<string>()
  /** Materials stored before the fence was raised. */
  readonly #fenced = new Set<string>()
  /** Devices with a reset that is pending or ended without an answer. */
  readonly #resetting = new Set<string>()
  /** Materials that such a reset may have withdrawn. */
  readonly #inDoubt = new Set<string>()
  /** IDs of acknowledged messages that the device has not received yet, by device. */
  #undelivered = new Map<string, Set<string>>()
  /** The undelivered messages at the beginning of the loss. */
  #undeliveredBeforeLoss: Map<string, Set<string>> | undefined
  readonly acknowledged = { uploads: 0, claimedKeys: 0, resets: 0, messages: 0 }

  stored(device: string, materials: Iterable<string>): void {
    const known = this.#stored.get(device) ?? new Set()
    for (const material of materials) known.add(material)
    this.#stored.set(device, known)
    this.acknowledged.uploads++
  }

  /** Records a claimed key: it must not have been issued or withdrawn before. */
  issued(material: string): void {
    assert.ok(!this.#issued.has(material), `key ${material} was issued twice`)
    assert.ok(
      !this.#withdrawn.has(material),
      `key ${material} was issued although its withdrawal was acknowledged`,
    )
    assert.ok(
      !this.#fenced.has(material),
      `key ${material} was issued although the fence was raised after its upload`,
    )
    this.#issued.add(material)
    this.acknowledged.claimedKeys++
  }

  withdrawn(materials: Iterable<string>): void {
    for (const material of materials) {
      assert.ok(
        !this.#issued.has(material),
        `key ${material} was reported as withdrawn although it was issued`,
      )
      this.#withdrawn.add(material)
    }
    this.acknowledged.resets++
  }

  resetBegins(device: string): void {
    this.#resetting.add(device)
  }

  resetEnds(device: string): void {
    this.#resetting.delete(device)
  }

  sent(device: string, id: string): void {
    this.#undelivered.set(device, (this.#undelivered.get(device) ?? new Set()).add(id))
    this.acknowledged.messages++
  }

  /** Writes acknowledged from now on will be lost. */
  lossBegins(): void {
    this.#undeliveredBeforeLoss = structuredClone(this.#undelivered)
  }

  /**
   * The fence was raised: keys stored before are never issued. Writes acknowledged since `lossBegins`, if it was
   * called, are lost; every earlier message must still be delivered. No request may be pending.
   *
   * @param stored materials stored before the raise; default: all
   */
  fenced(stored: readonly string[] = this.storedKeys): void {
    for (const material of stored) this.#fenced.add(material)
    this.#undelivered = this.#undeliveredBeforeLoss ?? this.#undelivered
    this.#undeliveredBeforeLoss = undefined
    this.#stored.clear()
    this.#inDoubt.clear()
    this.#resetting.clear()
  }

  /** Materials whose upload was acknowledged since the last raise. */
  get storedKeys(): readonly string[] {
    return [...this.#stored.values()].flatMap((materials) => [...materials])
  }

  /** Compares a device's pool and inbox with everything acknowledged. */
  check(device: string, view: PoolView, messageIds: ReadonlySet<string>): void {
    const mayBeWithdrawn = this.#resetting.delete(device)
    for (const material of this.#stored.get(device) ?? []) {
      const hash = hashOf(material)
      const available = view.available.has(hash)
      const issued = view.issued.has(hash)
      if (mayBeWithdrawn && !available && !issued) this.#inDoubt.add(material)
      assert.ok(!(available && issued), `key ${material} is available and issued`)
      if (this.#issued.has(material))
        assert.ok(issued, `key ${material} was issued, but the server does not list it as issued`)
      else if (this.#withdrawn.has(material)) {
        assert.ok(!available, `key ${material} is available although its withdrawal was acknowledged`)
      } else if (!this.#inDoubt.has(material)) {
        assert.ok(available || issued, `key ${material} of an acknowledged upload is lost`)
      }
    }
    for (const id of this.#undelivered.get(device) ?? []) {
      assert.ok(messageIds.has(id), `message ${id} was acknowledged and is lost`)
    }
    this.#undelivered.delete(device)
    this.#undeliveredBeforeLoss?.delete(device)
  }
}

export function hashOf(material: string): string {
  return createHash('sha256').update(material).digest('base64url')
}
