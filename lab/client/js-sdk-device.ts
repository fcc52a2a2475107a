/** A device on an unmodified matrix-js-sdk, which syncs by itself; a round is two of its syncs, each with an event. */
import type { ClaimedKey, MatrixSession } from '../../test/support/matrix-session.ts'
import { type JsSdkClient, type JsSdkOptions, silence } from '../../test/support/js-sdk-client.ts'
import { type LabDevice, POOL, poolContents, type PoolContents, type Unreadable } from './device.ts'
import type { Shared } from './machine-device.ts'
import { type FaultyNetwork, SYNC } from './network.ts'

/** Which version of the SDK: `createClient` is that of the other one. */
export type SdkVersion = Pick<JsSdkOptions, 'createClient'>

export type JsSdkParts = {
  readonly client: JsSdkClient
  readonly shared: Shared
}

export class JsSdkDevice implements LabDevice {
  readonly network: FaultyNetwork
  readonly unreadable: Unreadable[] = []
  readonly #client: JsSdkClient
  readonly #parts: JsSdkParts
  #nudges = 0

  constructor(parts: JsSdkParts) {
    this.#parts = parts
    this.#client = parts.client
    this.network = parts.shared.network
  }

  get session(): MatrixSession {
    return this.#client.session
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

  /** Resolves when `count` syncs more were answered, and the last of them taken in. */
  async round(count = 2): Promise<void> {
    for (let i = 0; i < count; i++) {
      const seen = this.#syncsBegun()
      await this.#nudge()
      await this.#client.until('a sync with news', () => this.#syncsBegun() > seen)
    }
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    await this.#client.until(what, holds)
  }

  async held(): Promise<ReadonlySet<string>> {
    return this.#parts.shared.keys.held
  }

  noteUsed(key: ClaimedKey): void {
    if (!key.isFallback) this.#parts.shared.keys.held.delete(key.key)
  }

  async pool(): Promise<PoolContents> {
    return poolContents(await this.session.ok('GET', POOL))
  }

  async close(): Promise<void> {
    this.#client.stop()
  }

  /** Syncs whose answer with a nudge has been taken in: the next one confirms it. */
  #syncsBegun(): number {
    return this.network.to(SYNC).filter(({ answer }) => (answer.to_device?.events ?? []).length > 0).length
  }

  /** Something for the long-poll to return with. */
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
