/** Senders of messages to the lab's devices: unmodified OlmMachines of separate users, created when needed. */
import { type OlmDevice, OlmDevice as Machine } from '@latchkey/testing/olm-device.ts'

export class Senders {
  readonly #baseUrl: string
  readonly #made = new Map<number, Promise<OlmDevice>>()

  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl
  }

  /** Returns the same sender for the same number. */
  get(number: number): Promise<OlmDevice> {
    const sender =
      this.#made.get(number) ?? Machine.ready(this.#baseUrl, { user: `sender-${number}`, deviceId: 'SENDER' })
    this.#made.set(number, sender)
    return sender
  }

  /** A device for hostile requests only. */
  attacker(): Promise<OlmDevice> {
    return this.get(-1)
  }

  async close(): Promise<void> {
    for (const sender of await Promise.all(this.#made.values())) sender.close()
  }
}
