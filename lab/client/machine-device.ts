/** A device on an unmodified OlmMachine, with or without the guard. */
import type { ClaimedKey, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import type { Snapshot } from '@latchkey/client'
import type { Backup as CryptoBackup, OlmDevice } from '@latchkey/testing/olm-device.ts'
import type { Guard, GuardLimits } from './guard-of.ts'
import { BETWEEN_ROUNDS_MS, type Clock } from './clock.ts'
import {
  type Heals,
  type LabDevice,
  POOL,
  poolContents,
  type PoolContents,
  type Unreadable,
} from './device.ts'
import { type FaultyNetwork, isLost } from './network.ts'
import type { MachineKeys, SavedKeys } from './machine-keys.ts'
import type { RewindableStore } from './rewindable-store.ts'

export type MachineBackup = {
  readonly crypto: CryptoBackup
  readonly held: ReadonlySet<string>
  readonly ledger: Snapshot
}

/** State that clients on one crypto store share. */
export type Shared = {
  /** Private keys in the crypto store. */
  readonly saved: SavedKeys
  readonly network: FaultyNetwork
  /** The guard's store. */
  readonly ledger: RewindableStore
  readonly clock: Clock
  readonly limits?: GuardLimits
}

export type MachineParts = {
  readonly machine: OlmDevice
  /** The session without the network's faults. */
  readonly direct: MatrixSession
  readonly shared: Shared
  /** Private keys of this client. */
  readonly keys: MachineKeys
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
    return this.#parts.keys.held
  }

  noteUsed(key: ClaimedKey): void {
    if (!key.isFallback) this.#parts.keys.noteUsed(key.key)
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.#parts.direct.ok('GET', POOL))
  }

  /** The session without the network's faults. */
  get direct(): MatrixSession {
    return this.#parts.direct
  }

  get shared(): Shared {
    return this.#parts.shared
  }

  async backUp(): Promise<MachineBackup> {
    const { saved, ledger } = this.shared
    const crypto = await this.machine.backUp()
    this.#parts.keys.reopen()
    return { crypto, held: saved.keys, ledger: await ledger.read() }
  }

  /** Restores the device from a backup; with `cryptoAlone` without the guard's ledger. */
  async restore({ crypto, held, ledger }: MachineBackup, { cryptoAlone = false } = {}): Promise<void> {
    await this.machine.restoreFrom(crypto)
    this.shared.saved.keys = held
    this.#parts.keys.reopen()
    if (!cryptoAlone) this.shared.ledger.restore(ledger)
    this.#parts.guard.recreate()
  }

  heals(): Promise<Heals | undefined> {
    return this.#parts.guard.heals()
  }

  /** Deletes the crypto store; session and ledger remain. */
  async wipe(): Promise<void> {
    await this.machine.wipe()
    this.shared.saved.keys = new Set()
    this.#parts.keys.reopen()
    this.#parts.guard.recreate()
  }

  async close(): Promise<void> {
    this.machine.close()
  }
}
