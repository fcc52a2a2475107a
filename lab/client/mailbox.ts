/**
 * Counts the outcomes of messages to one device. Each is the first of its sender, so each needs a key of the device.
 *
 *     read                                     success
 *     not read, private key was available      undecryptable: a failure
 *     not read, sent after the first round     undecryptable: the device should have been healed by then
 *     not read, private key was not available  lost: cannot be decrypted; the client should give the true cause
 */
import type { Verdict } from '@latchkey/client'
import type { AnyJson, ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { LabDevice } from './device.ts'
import { UPLOAD } from './network.ts'
import { poolHash } from './pickle-audit.ts'
import type { Senders } from './senders.ts'

export type Tally = {
  readonly sent: number
  readonly read: number
  readonly undecryptable: number
  readonly lost: readonly { readonly text: string; readonly cause: string | undefined }[]
  /** Messages that the device could not decrypt without a cause, including forgeries and duplicates. */
  readonly unexplained: number
  /** Messages that were decrypted twice. */
  readonly readTwice: number
  /** Uploads that reached the server, those that it refused, and the one-time keys that it accepted. */
  readonly uploads: number
  readonly refused: number
  readonly published: number
  /** Keys that the server would issue now and whose private halves the device does not have. */
  readonly deadKeys: number
}

/** A wrong cause if the server got the key from this device, in any of its states. */
const UNKNOWN_KEY: Verdict = 'unknown_key'

type Message = {
  readonly text: string
  readonly sender: string
  readonly key: ClaimedKey | undefined
  isDue: boolean
  /** Encrypted with a session that the device has lost. */
  readonly isSessionLost: boolean
  wasHeld: boolean
  isRead: boolean
}

export class Mailbox {
  readonly #senders: Senders
  readonly #messages: Message[] = []
  #device: LabDevice
  #others: LabDevice[] = []
  readonly #readBefore: string[] = []
  #nextSender = 0
  #isDue = false

  constructor(senders: Senders, device: LabDevice) {
    this.#senders = senders
    this.#device = device
  }

  /** Sends `count` messages, each from a new sender. Returns the keys used. */
  async write(count = 1): Promise<ClaimedKey[]> {
    const keys: ClaimedKey[] = []
    for (let i = 0; i < count; i++) {
      const sender = await this.#senders.get(this.#nextSender++)
      const text = `message ${this.#messages.length + 1}`
      const key = await sender.write(this.#device, text)
      this.#note(sender.userId, text, key)
      if (key !== undefined) keys.push(key)
    }
    return keys
  }

  /**
   * The first sender writes again with the existing session; `isSessionLost`: the device has lost its half of the
   * session.
   */
  async writeAgain({ isSessionLost }: { readonly isSessionLost: boolean }): Promise<void> {
    const sender = await this.#senders.get(0)
    const text = `message ${this.#messages.length + 1}`
    this.#note(sender.userId, text, undefined, isSessionLost)
    await sender.send(this.#device, text)
  }

  /** A sender claims a key now and sends later, by the returned `send`. */
  async claimFor(): Promise<{ readonly key: ClaimedKey; send(): Promise<void> }> {
    const sender = await this.#senders.get(this.#nextSender++)
    const key = await sender.startSession(this.#device)
    if (key === undefined) throw new Error('expected a sender without a session')
    const send = async (): Promise<void> => {
      const text = `message ${this.#messages.length + 1}`
      this.#note(sender.userId, text, key)
      await sender.send(this.#device, text)
    }
    return { key, send }
  }

  /** Claims keys without sending messages. */
  async claim(count: number): Promise<ClaimedKey[]> {
    const claimer = await this.#senders.get(0)
    return claimer.session.claimMany(this.#device.userId, this.#device.deviceId, count)
  }

  /** Runs one round of the device. Records before it which private keys are available for pending messages. */
  async round(device = this.#device): Promise<void> {
    await this.watch(device, () => device.round())
  }

  /** As `round`, for any other operation that makes the device receive. */
  async watch(device: LabDevice, receive: () => Promise<void>): Promise<void> {
    const held = await device.held()
    for (const message of this.#messages) {
      if (message.isRead) continue
      message.wasHeld = message.key === undefined ? !message.isSessionLost : held.has(message.key.key)
    }
    await receive()
    for (const message of this.#messages) {
      if (message.isRead || !device.read.includes(message.text)) continue
      message.isRead = true
      if (message.key !== undefined) device.noteUsed?.(message.key)
    }
  }

  /** Records messages that an earlier process of the device read and whose IDs its app has stored. */
  noteRead(messages: readonly { readonly id: string; readonly text: string }[]): void {
    for (const { id, text } of messages) {
      this.#readBefore.push(text)
      if (id !== '') this.#device.noteHandled?.(id)
      for (const message of this.#messages) if (message.text === text) message.isRead = true
    }
  }

  /** Call after the fault and the device's first round: all later messages must be readable. */
  requireAllFromNow(): void {
    this.#isDue = true
  }

  /** Pending messages must be readable although they were sent before the device was healed. */
  requirePending(): void {
    for (const message of this.#messages) message.isDue ||= !message.isRead
  }

  /** Continues with another installation of the device; messages that earlier ones read count as read. */
  switchTo(device: LabDevice): void {
    this.#others.push(this.#device)
    this.#device = device
  }

  async tally(): Promise<Tally> {
    const device = this.#device
    const devices = [...new Set([device, ...this.#others])]
    const readings = [...this.#readBefore, ...devices.flatMap(({ read }) => read)]
    const unread = this.#messages.filter(({ isRead }) => !isRead)
    const excused = unread.filter((message) => !message.isDue && !this.#couldBeRead(message))
    const causes = devices.flatMap(({ unreadable }) => unreadable)
    const exchanges = [...new Set(devices.map(({ network }) => network))].flatMap((network) =>
      network.to(UPLOAD),
    )
    const taken = exchanges.filter(({ status }) => status === 200).map(({ sent }) => sent)
    const published = new Set(taken.flatMap(publicKeysOf))
    const lost = excused.map(({ text, sender, key }) => {
      const cause = causes.findLast((failure) => failure.sender === sender)?.cause ?? device.unusableBecause
      return { text, cause, isTrue: cause !== UNKNOWN_KEY || !published.has(key?.key ?? '') }
    })
    const [held, pool] = [await device.held(), await device.pool()]
    const heldHashes = new Set([...held].map(poolHash))
    return {
      sent: this.#messages.length,
      read: this.#messages.length - unread.length,
      undecryptable: unread.length - excused.length,
      lost: lost.map(({ text, cause, isTrue }) => ({ text, cause: isTrue ? cause : undefined })),
      unexplained:
        causes.filter(({ cause }) => cause === undefined).length +
        lost.filter(({ isTrue }) => !isTrue).length,
      readTwice: readings.length - new Set(readings).size,
      uploads: exchanges.length,
      refused: exchanges.filter(({ status }) => status !== 200).length,
      published: taken.reduce((sum, { one_time_keys: keys = {} }) => sum + Object.keys(keys).length, 0),
      deadKeys: pool.issuable.filter((hash) => !heldHashes.has(hash)).length,
    }
  }

  #note(sender: string, text: string, key: ClaimedKey | undefined, isSessionLost = false): void {
    const message = { text, sender, key, isDue: this.#isDue, isSessionLost, wasHeld: true, isRead: false }
    this.#messages.push(message)
  }

  /** Whether the message was decryptable. A one-time key decrypts one message, so an earlier one may have used it. */
  #couldBeRead({ key, wasHeld }: Message): boolean {
    const usedUp = this.#messages.some(
      (other) => other.isRead && other.key?.isFallback === false && other.key.key === key?.key,
    )
    return wasHeld && !usedUp
  }
}

function publicKeysOf({ one_time_keys: oneTime = {}, fallback_keys: fallback = {} }: AnyJson): string[] {
  return [oneTime, fallback].flatMap((keys) => Object.values<AnyJson>(keys).map(({ key }) => key))
}
