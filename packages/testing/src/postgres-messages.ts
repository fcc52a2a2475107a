/**
 * Splits a PostgreSQL client's byte stream into messages. Each has a type byte and a length; those that open the
 * connection have only a length. Source: PostgreSQL's manual, "Message Formats".
 */

export type ClientMessage = {
  /** `Q` a simple query, `P` parse, `B` bind, `E` execute, `S` sync, `X` terminate; empty before the session begins. */
  readonly type: string
  /** The complete message as sent. */
  readonly bytes: Buffer
}

const LENGTH_BYTES = 4
/** Codes of encryption requests, which precede the opening message. */
const ENCRYPTION_REQUESTS: readonly number[] = [80_877_103, 80_877_104]

/** Returns a predicate: whether a message executes a statement that matches. */
export function executes(pattern: RegExp): (message: ClientMessage) => boolean {
  return ({ type, bytes }) => (type === 'Q' || type === 'P') && pattern.test(bytes.toString('latin1', 5))
}

/** The end of a transaction, with or without other statements before it. */
export const isCommit = executes(/\bcommit\b/i)

export class MessageSplitter {
  #pending: Buffer = Buffer.alloc(0)
  #opened = false

  /** The messages that this chunk completes; an incomplete rest is buffered. */
  push(chunk: Buffer): ClientMessage[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    const messages: ClientMessage[] = []
    for (let next = this.#take(); next !== undefined; next = this.#take()) messages.push(next)
    return messages
  }

  #take(): ClientMessage | undefined {
    const start = this.#opened ? 1 : 0
    if (this.#pending.length < start + LENGTH_BYTES) return undefined
    const end = start + this.#pending.readUInt32BE(start)
    if (this.#pending.length < end) return undefined
    const bytes = this.#pending.subarray(0, end)
    this.#pending = this.#pending.subarray(end)
    const type = bytes.toString('latin1', 0, start)
    this.#opened ||= !ENCRYPTION_REQUESTS.includes(bytes.readUInt32BE(LENGTH_BYTES))
    return { type, bytes }
  }
}
