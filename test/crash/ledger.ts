/**
 * What the clients of the crash test know for certain, and what they cannot know because an answer never came.
 * Judged against the server after each kill.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

/** The pool as the device reads it: hashes of key material. */
export type PoolView = { readonly available: ReadonlySet<string>; readonly issued: ReadonlySet<string> }

export class Ledger {
  /** Materials by device whose upload or replacement was acknowledged as stored. */
  readonly #stored = new Map<string, Set<string>>()
  readonly #issued = new Set<string>()
  readonly #withdrawn = new Set<string>()
  /** Materials of before a fence. */
  readonly #fenced = new Set<string>()
  /** Devices with a reset under way, or ended without an answer. */
  readonly #resetting = new Set<string>()
  /** Materials that such a reset may have withdrawn. */
  readonly #inDoubt = new Set<string>()
  /** Message IDs by device whose sending was acknowledged and that the device has not seen yet. */
  #undelivered = new Map<string, Set<string>>()
  /** As it was when what came after began to be lost. */
  #undeliveredBeforeLoss: Map<string, Set<string>> | undefined
  readonly acknowledged = { uploads: 0, claimedKeys: 0, resets: 0, messages: 0 }

  stored(device: string, materials: Iterable<string>): void {
    const known = this.#stored.get(device) ?? new Set()
    for (const material of materials) known.add(material)
    this.#stored.set(device, known)
    this.acknowledged.uploads++
  }

  /** A claim was answered with this key: it must be the only one ever, and of a key that nobody withdrew. */
  issued(material: string): void {
    assert.ok(!this.#issued.has(material), `key ${material} was issued twice`)
    assert.ok(!this.#withdrawn.has(material), `key ${material} was issued although it was called withdrawn`)
    assert.ok(!this.#fenced.has(material), `key ${material} was issued although the fence was raised since`)
    this.#issued.add(material)
    this.acknowledged.claimedKeys++
  }

  withdrawn(materials: Iterable<string>): void {
    for (const material of materials) {
      assert.ok(!this.#issued.has(material), `key ${material} was called withdrawn although it was issued`)
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

  /** What is acknowledged from here on is going to be lost. */
  lossBegins(): void {
    this.#undeliveredBeforeLoss = structuredClone(this.#undelivered)
  }

  /**
   * The fence was raised: what was stored before is never issued again. With `lossBegins` before it, what was acknowledged
   * since then is lost; every message of before that is still to be delivered. Nothing may be under way.
   *
   * @param stored what was stored when nobody had raised it yet; undefined: everything
   */
  fenced(stored: readonly string[] = this.storedKeys): void {
    for (const material of stored) this.#fenced.add(material)
    this.#undelivered = this.#undeliveredBeforeLoss ?? this.#undelivered
    this.#undeliveredBeforeLoss = undefined
    this.#stored.clear()
    this.#inDoubt.clear()
    this.#resetting.clear()
  }

  /** Everything whose upload was acknowledged since the fence was raised last. */
  get storedKeys(): readonly string[] {
    return [...this.#stored.values()].flatMap((materials) => [...materials])
  }

  /** Holds what a device reads of its pool and inbox against everything acknowledged. */
  check(device: string, view: PoolView, messageIds: ReadonlySet<string>): void {
    const mayBeWithdrawn = this.#resetting.delete(device)
    for (const material of this.#stored.get(device) ?? []) {
      const hash = hashOf(material)
      const available = view.available.has(hash)
      const issued = view.issued.has(hash)
      if (mayBeWithdrawn && !available && !issued) this.#inDoubt.add(material)
      assert.ok(!(available && issued), `key ${material} is available and issued`)
      if (this.#issued.has(material))
        assert.ok(issued, `key ${material} was issued, and the server does not know it`)
      else if (this.#withdrawn.has(material)) {
        assert.ok(!available, `key ${material} is back although its withdrawal was acknowledged`)
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
