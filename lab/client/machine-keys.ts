/**
 * Tracks the private keys of an OlmMachine. A machine reads its account from the crypto store only when it is opened,
 * and saves the whole account at each change. Two machines on one store do not have each other's new keys, and the
 * store has those of the last one that saved.
 */
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'
import { UPLOAD } from './network.ts'

/** Keys of the account in a crypto store, by public half. Shared by the clients on one store. */
export type SavedKeys = { keys: ReadonlySet<string> }

/**
 * Keys of one machine: those saved when it was opened, and those of its uploads. A machine keeps 5 000 keys and never
 * drops unused ones in the lab, so this is exact if decrypted messages and restored copies are reported.
 */
export class MachineKeys {
  readonly #saved: SavedKeys
  #held: Set<string>

  constructor(saved: SavedKeys) {
    this.#saved = saved
    this.#held = new Set(saved.keys)
  }

  get held(): ReadonlySet<string> {
    return this.#held
  }

  /** Reports that the machine was reopened. */
  reopen(): void {
    this.#held = new Set(this.#saved.keys)
  }

  /** Reports a decrypted message with this key, whose private half is then removed. */
  noteUsed(key: string): void {
    this.#held.delete(key)
    this.#save()
  }

  /** A `fetch` in front of `next` that records the machine's uploads. */
  watching(next: Fetch): Fetch {
    return (input, init) => {
      if (String(input).endsWith(UPLOAD) && typeof init?.body === 'string') this.#noteMade(init.body)
      return next(input, init)
    }
  }

  #noteMade(body: string): void {
    const { one_time_keys: oneTime = {}, fallback_keys: fallback = {} }: AnyJson = JSON.parse(body)
    // Kept apart, because vodozemac numbers both from 0.
    for (const keys of [oneTime, fallback]) {
      for (const { key } of Object.values<AnyJson>(keys)) this.#held.add(key)
    }
    this.#save()
  }

  #save(): void {
    this.#saved.keys = new Set(this.#held)
  }
}
