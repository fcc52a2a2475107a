/** A device on an unmodified matrix-js-sdk, which syncs by itself. A round is two of its syncs, each with an event. */
import type { AnyJson, ClaimedKey, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { type JsSdkClient, type JsSdkOptions, silence } from '@latchkey/testing/js-sdk-client.ts'
import {
  type Heals,
  type LabDevice,
  POOL,
  poolContents,
  type PoolContents,
  type Unreadable,
} from './device.ts'
import type { Guard } from './guard-of.ts'
import type { Shared } from './machine-device.ts'
import type { MachineKeys } from './machine-keys.ts'
import { type FaultyNetwork, SYNC } from './network.ts'

/** SDK version, selected by its `createClient`. */
export type SdkVersion = Pick<JsSdkOptions, 'createClient'>

export type JsSdkParts = {
  readonly client: JsSdkClient
  readonly shared: Shared
  readonly keys: MachineKeys
  readonly guard: Guard
}

export class JsSdkDevice implements LabDevice {
  readonly network: FaultyNetwork
  readonly unreadable: Unreadable[] = []
  readonly #client: JsSdkClient
  readonly #parts: JsSdkParts
  #nudges = 0
  /** Number of delivered messages that were checked. */
  #looked = 0

  constructor(parts: JsSdkParts) {
    this.#parts = parts
    this.#client = parts.client
    this.network = parts.shared.network
  }

  get session(): MatrixSession {
    return this.#client.session
  }

  /** The session without the guard and the network's faults. */
  get direct(): MatrixSession {
    return this.session.through(fetch)
  }

  get userId(): string {
    return this.#client.userId
  }

  get deviceId(): string {
    return this.#client.deviceId
  }

  get read(): readonly string[] {
    return this.#client.received.map(({ text }) => text)
  }

  /** Resolves when `count` more syncs were answered and processed. */
  async round(count = 2): Promise<void> {
    for (let i = 0; i < count; i++) {
      const seen = this.#syncsBegun()
      await this.#nudge()
      await this.#client.until('a sync with an event', () => this.#syncsBegun() > seen)
    }
    await this.#noteUnreadable()
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    await this.#client.until(what, holds)
  }

  async held(): Promise<ReadonlySet<string>> {
    return this.#parts.keys.held
  }

  noteUsed(key: ClaimedKey): void {
    if (!key.isFallback) this.#parts.keys.noteUsed(key.key)
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.session.ok('GET', POOL))
  }

  heals(): Promise<Heals | undefined> {
    return this.#parts.guard.heals()
  }

  async close(): Promise<void> {
    this.#client.stop()
  }

  /**
   * The SDK does not report messages that it cannot decrypt. They are the delivered messages that were not decrypted;
   * everything before the latest sync has been processed.
   */
  async #noteUnreadable(): Promise<void> {
    const takenIn = this.network.to(SYNC).slice(0, -1)
    const delivered: AnyJson[] = takenIn
      .flatMap(({ answer }) => answer.to_device?.events ?? [])
      .filter(({ type }) => type === 'm.room.encrypted')
    for (const [i, event] of delivered.entries()) {
      if (i < this.#looked) continue
      const of = (messages: readonly { readonly sender: string }[]): number =>
        messages.filter(({ sender }) => sender === event.sender).length
      const isRead = of(delivered.slice(0, i + 1)) <= of(this.#client.received) + of(this.unreadable)
      if (isRead) continue
      this.unreadable.push({ sender: event.sender, cause: await this.#parts.guard.explain(event) })
    }
    this.#looked = delivered.length
  }

  /** Number of processed syncs with a nudge; the following sync confirms each. */
  #syncsBegun(): number {
    return this.network.to(SYNC).filter(({ answer }) => (answer.to_device?.events ?? []).length > 0).length
  }

  /** Sends an event that ends the long-poll. */
  async #nudge(): Promise<void> {
    const path = `/v3/sendToDevice/dev.latchkey.lab.nudge/${this.#nudges++}`
    await this.session.ok('PUT', path, { messages: { [this.userId]: { [this.deviceId]: {} } } })
  }
}

/** matrix-js-sdk 42.3.0, which uploads fifty more keys after each sync (matrix-js-sdk#5501). */
export async function floodingSdk(): Promise<SdkVersion> {
  const { createClient } = await import('matrix-js-sdk-flooding/lib/matrix.js')
  const { logger } = await import('matrix-js-sdk-flooding/lib/logger.js')
  silence(logger)
  return { createClient: createClient as unknown as NonNullable<SdkVersion['createClient']> }
}
