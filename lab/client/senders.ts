/** Those who write to the devices of the lab: unmodified OlmMachines of users of their own, made as they are needed. */
import { type OlmDevice, OlmDevice as Machine } from '@latchkey/testing/olm-device.ts'

export class Senders {
  readonly #baseUrl: string
  readonly #made = new Map<number, Promise<OlmDevice>>()

  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl
  }

  /** The same for the same number. */
  get(number: number): Promise<OlmDevice> {
    const sender =
      this.#made.get(number) ?? Machine.ready(this.#baseUrl, { user: `sender-${number}`, deviceId: 'SENDER' })
    this.#made.set(number, sender)
    return sender
  }

  /** One who only ever does harm. */
  stranger(): Promise<OlmDevice> {
    return this.get(-1)
  }

  async close(): Promise<void> {
    for (const sender of await Promise.all(this.#made.values())) sender.close()
  }
}
