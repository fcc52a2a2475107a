/**
 * Which private keys an OlmMachine has. It reads its account from the crypto store when it is opened, and never again; it
 * saves the whole account at each change. Of two on one store neither has the new keys of the other, and the store has
 * those of the one that saved last.
 */
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'
import { UPLOAD } from './network.ts'

/** What the account in a crypto store has, by public half. Clients on one store share it. */
export type SavedKeys = { keys: ReadonlySet<string> }

/**
 * Those of one machine: what was saved when it was opened, and those of the uploads that it tried. It never drops one
 * unused, having room for 5 000, so this is exact as long as it is told of messages read and of copies put back.
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

  /** The machine was opened anew. */
  reopen(): void {
    this.#held = new Set(this.#saved.keys)
  }

  /** A message with this key was read: its private half goes. */
  noteUsed(key: string): void {
    this.#held.delete(key)
    this.#save()
  }

  /** A `fetch` in front of `next` that looks at uploads as the machine makes them. */
  watching(next: Fetch): Fetch {
    return (input, init) => {
      if (String(input).endsWith(UPLOAD) && typeof init?.body === 'string') this.#noteMade(init.body)
      return next(input, init)
    }
  }

  #noteMade(body: string): void {
    const { one_time_keys: oneTime = {}, fallback_keys: fallback = {} }: AnyJson = JSON.parse(body)
    // Not merged: vodozemac counts both from 0, so they share IDs.
    for (const keys of [oneTime, fallback]) {
      for (const { key } of Object.values<AnyJson>(keys)) this.#held.add(key)
    }
    this.#save()
  }

  #save(): void {
    this.#saved.keys = new Set(this.#held)
  }
}
