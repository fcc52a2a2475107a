/**
 * Counts what becomes of the messages to one device. Each is the first of its sender, so each needs a key of the device.
 *
 *     read                                    the rest of the table does not concern it
 *     not read, private key was there         undecryptable: never an excuse
 *     not read, sent after the first round    undecryptable: by then the device should have been mended
 *     not read, private key was gone          lost: nothing can read it; somebody should say why, and it should be true
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
  /** What the device could not read, forgeries and duplicates included, and cannot say why. */
  readonly unexplained: number
  /** Messages that were read twice. */
  readonly readTwice: number
  /** Uploads that reached the server, those that it refused, and the one-time keys that it took. */
  readonly uploads: number
  readonly refused: number
  readonly published: number
  /** Keys that the server would issue now and nobody could use. */
  readonly orphans: number
}

/** Is no cause where the server took the key from this device, whatever state of it that was. */
const UNKNOWN_KEY: Verdict = 'unknown_key'

type Message = {
  readonly text: string
  readonly sender: string
  readonly key: ClaimedKey | undefined
  isDue: boolean
  /** Made on a session that the device has lost. */
  readonly isSessionGone: boolean
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

  /** As many messages, each of a sender that has not written before. Returns the keys that they were made with. */
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

  /** The first sender writes again, on the session that there is; `isGone`: the device has lost its side of it. */
  async writeAgain({ isGone }: { readonly isGone: boolean }): Promise<void> {
    const sender = await this.#senders.get(0)
    const text = `message ${this.#messages.length + 1}`
    this.#note(sender.userId, text, undefined, isGone)
    await sender.send(this.#device, text)
  }

  /** A sender claims a key now and sends later: what is returned sends. */
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

  /** Keys that are claimed by people who never write. */
  async claim(count: number): Promise<ClaimedKey[]> {
    const claimer = await this.#senders.get(0)
    return claimer.session.claimMany(this.#device.userId, this.#device.deviceId, count)
  }

  /** One round of the device; notes first which private keys are there for what may come. */
  async round(device = this.#device): Promise<void> {
    await this.watch(device, () => device.round())
  }

  /** As `round`, for whatever else makes the device receive. */
  async watch(device: LabDevice, receive: () => Promise<void>): Promise<void> {
    const held = await device.held()
    for (const message of this.#messages) {
      if (message.isRead) continue
      message.wasHeld = message.key === undefined ? !message.isSessionGone : held.has(message.key.key)
    }
    await receive()
    for (const message of this.#messages) {
      if (message.isRead || !device.read.includes(message.text)) continue
      message.isRead = true
      if (message.key !== undefined) device.noteUsed?.(message.key)
    }
  }

  /** What an earlier process of the device read, whose IDs its app remembers. */
  noteRead(messages: readonly { readonly id: string; readonly text: string }[]): void {
    for (const { id, text } of messages) {
      this.#readBefore.push(text)
      if (id !== '') this.#device.noteHandled?.(id)
      for (const message of this.#messages) if (message.text === text) message.isRead = true
    }
  }

  /** The fault is over and the device has had its first round: what is written from now on has to be readable. */
  expectAllFromNow(): void {
    this.#isDue = true
  }

  /** What is under way has to be readable when it comes, although it was sent before the device was mended. */
  mustStayReadable(): void {
    for (const message of this.#messages) message.isDue ||= !message.isRead
  }

  /** From now on it is this installation of the device that counts; what the others read stays read. */
  moveTo(device: LabDevice): void {
    this.#others.push(this.#device)
    this.#device = device
  }

  async tally(): Promise<Tally> {
    const device = this.#device
    const everybody = [...new Set([device, ...this.#others])]
    const readings = [...this.#readBefore, ...everybody.flatMap(({ read }) => read)]
    const unread = this.#messages.filter(({ isRead }) => !isRead)
    const excused = unread.filter((message) => !message.isDue && !this.#couldBeRead(message))
    const causes = everybody.flatMap(({ unreadable }) => unreadable)
    const exchanges = [...new Set(everybody.map(({ network }) => network))].flatMap((network) =>
      network.to(UPLOAD),
    )
    const taken = exchanges.filter(({ status }) => status === 200).map(({ sent }) => sent)
    const published = new Set(taken.flatMap(publicKeysOf))
    const lost = excused.map(({ text, sender, key }) => {
      const cause = causes.findLast((failure) => failure.sender === sender)?.cause ?? device.deadBecause
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
      orphans: pool.issuable.filter((hash) => !heldHashes.has(hash)).length,
    }
  }

  #note(sender: string, text: string, key: ClaimedKey | undefined, isSessionGone = false): void {
    const message = { text, sender, key, isDue: this.#isDue, isSessionGone, wasHeld: true, isRead: false }
    this.#messages.push(message)
  }

  /** A one-time key reads one message: if another was made with it and read, this one could not be. */
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
