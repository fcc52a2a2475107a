/** A device on an unmodified OlmMachine, whose requests pass the guard or do not. */
import type { AnyJson, ClaimedKey, Fetch, MatrixSession } from '../../test/support/matrix-session.ts'
import type { Snapshot } from '@latchkey/client'
import type { Backup as CryptoBackup, OlmDevice } from '../../test/support/olm-device.ts'
import type { Guard } from './guard-of.ts'
import { BETWEEN_ROUNDS_MS, type Clock } from './clock.ts'
import { type LabDevice, POOL, poolContents, type PoolContents, type Unreadable } from './device.ts'
import { type FaultyNetwork, isLost } from './network.ts'
import type { RewindableStore } from './rewindable-store.ts'

export type MachineBackup = {
  readonly crypto: CryptoBackup
  readonly held: ReadonlySet<string>
  readonly ledger: Snapshot
}

/** What clients on one crypto store share. */
export type Shared = {
  readonly keys: PublishedKeys
  readonly network: FaultyNetwork
  /** The guard's store. */
  readonly ledger: RewindableStore
  readonly clock: Clock
}

export type MachineParts = {
  readonly machine: OlmDevice
  /** The session past the network's faults. */
  readonly direct: MatrixSession
  readonly shared: Shared
  readonly guard: Guard
}

export class MachineDevice implements LabDevice {
  readonly network: FaultyNetwork
  readonly machine: OlmDevice
  readonly unreadable: Unreadable[] = []
  readonly #parts: MachineParts

  constructor(parts: MachineParts) {
    this.#parts = parts
    this.machine = parts.machine
    this.network = parts.shared.network
  }

  get userId(): string {
    return this.machine.userId
  }

  get deviceId(): string {
    return this.machine.deviceId
  }

  get read(): readonly string[] {
    return this.machine.received.map(({ text }) => text)
  }

  async round(): Promise<void> {
    this.shared.clock.pass(BETWEEN_ROUNDS_MS)
    try {
      await this.machine.catchUp()
    } catch (error) {
      if (!isLost(error)) throw error
    }
    const events = this.machine.undecryptableEvents.slice(this.unreadable.length)
    for (const event of events) {
      this.unreadable.push({ sender: event.sender, cause: await this.#parts.guard.explain(event) })
    }
  }

  async held(): Promise<ReadonlySet<string>> {
    return this.shared.keys.held
  }

  noteUsed(key: ClaimedKey): void {
    if (!key.isFallback) this.shared.keys.held.delete(key.key)
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.#parts.direct.ok('GET', POOL))
  }

  /** The session past the network's faults. */
  get direct(): MatrixSession {
    return this.#parts.direct
  }

  get shared(): Shared {
    return this.#parts.shared
  }

  async backUp(): Promise<MachineBackup> {
    const { keys, ledger } = this.shared
    return {
      crypto: await this.machine.backUp(),
      held: new Set(keys.held),
      ledger: await ledger.read(),
    }
  }

  /** The phone is what it was; with `cryptoAlone` the guard's ledger is not. */
  async restore({ crypto, held, ledger }: MachineBackup, { cryptoAlone = false } = {}): Promise<void> {
    await this.machine.restoreFrom(crypto)
    this.shared.keys.held = new Set(held)
    if (!cryptoAlone) this.shared.ledger.setBack(ledger)
    this.#parts.guard.renew()
  }

  async close(): Promise<void> {
    this.machine.close()
  }
}

/**
 * Which private keys a machine has: those of the uploads that it tried. It never drops one unused, having room for
 * 5 000, so this is exact as long as it is told of messages read and of copies put back.
 */
export class PublishedKeys {
  held = new Set<string>()

  /** A `fetch` in front of `next` that looks at uploads as the machine makes them. */
  watching(next: Fetch): Fetch {
    return (input, init) => {
      if (String(input).endsWith('/keys/upload') && typeof init?.body === 'string') this.#note(init.body)
      return next(input, init)
    }
  }

  #note(body: string): void {
    const { one_time_keys: oneTime = {}, fallback_keys: fallback = {} }: AnyJson = JSON.parse(body)
    // Not merged: vodozemac counts both from 0, so they share IDs.
    for (const keys of [oneTime, fallback]) {
      for (const { key } of Object.values<AnyJson>(keys)) this.held.add(key)
    }
  }
}
