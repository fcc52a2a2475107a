/**
 * A TCP proxy in front of PostgreSQL that reproduces faults of networks, processes and failovers: it cuts connections
 * (also at a chosen message), refuses them, stops forwarding, or redirects them to another server.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { Transform } from 'node:stream'
import { type ClientMessage, MessageSplitter } from './postgres-messages.ts'

/** A connection that is stopped at a message. */
export type HeldConnection = {
  /** Continues without a fault. */
  pass(): void
  /** Cuts the connection on both sides. */
  cut(): void
}

/**
 * When to stop a message: `sent`, before the server has received it, or `answered`, after the server has executed it
 * and before the client has received the answer.
 */
export type Moment = 'sent' | 'answered'

type Trap = {
  readonly matches: (message: ClientMessage) => boolean
  readonly moment: Moment
  readonly trigger: (held: HeldConnection) => void
}

export class TcpProxy {
  readonly #server: Server
  readonly #links = new Set<Link>()
  readonly port: number
  #target: URL
  #refuses = false
  #silence: PromiseWithResolvers<void> | undefined
  #traps: readonly Trap[] = []
  #bytesLeft = Number.POSITIVE_INFINITY

  /** Forwards to `host:port` of a URL. */
  static async before(target: URL): Promise<TcpProxy> {
    const proxy: { opened?: TcpProxy } = {}
    const server = createServer((socket) => proxy.opened?.serve(socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    return (proxy.opened = new TcpProxy(server, target))
  }

  private constructor(server: Server, target: URL) {
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
    this.#server = server
    this.#target = new URL(target)
    this.port = address.port
  }

  /** The URL with this proxy as its host. */
  through(url: string): string {
    const through = new URL(url)
    through.host = `127.0.0.1:${this.port}`
    return through.href
  }

  /** Forwards new connections to `host:port` of another URL and cuts the existing ones. */
  moveTo(target: URL): void {
    this.#target = new URL(target)
    this.cut()
  }

  /** Cuts every connection; new ones are accepted. */
  cut(): void {
    for (const link of this.#links) link.cut()
  }

  /** Cuts every connection and closes each new one at once until `accept`. */
  refuse(): void {
    this.#refuses = true
    this.cut()
  }

  accept(): void {
    this.#refuses = false
  }

  /** Forwards nothing and closes nothing until `speak`, like a network that drops packets or a frozen machine. */
  fallSilent(): void {
    this.#silence ??= Promise.withResolvers()
  }

  speak(): void {
    this.#silence?.resolve()
    this.#silence = undefined
  }

  /** Stops the next connection whose client sends a matching message, once. */
  catch(matches: (message: ClientMessage) => boolean, moment: Moment): Promise<HeldConnection> {
    return new Promise((trigger) => (this.#traps = [...this.#traps, { matches, moment, trigger }]))
  }

  /**
   * Cuts a connection, once, after clients have sent `bytes` more bytes in total, possibly in the middle of a message.
   */
  cutAfter(bytes: number): void {
    this.#bytesLeft = bytes
  }

  /** Cuts every connection and releases the port. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.cut()
    this.speak()
    await closed
  }

  serve(client: Socket): void {
    if (this.#refuses) {
      client.on('error', () => {})
      client.resetAndDestroy()
      return
    }
    const link = new Link(client, connect(Number(this.#target.port), this.#target.hostname), {
      silence: () => this.#silence?.promise,
      trapFor: (message) => this.#trapFor(message),
      allowed: (bytes) => this.#allowed(bytes),
    })
    this.#links.add(link)
    client.once('close', () => this.#links.delete(link))
  }

  #trapFor(message: ClientMessage): Trap | undefined {
    const trap = this.#traps.find(({ matches }) => matches(message))
    if (trap !== undefined) this.#traps = this.#traps.filter((other) => other !== trap)
    return trap
  }

  /** How many of `bytes` may pass before the cut; undefined if no cut is due. */
  #allowed(bytes: number): number | undefined {
    if (bytes < this.#bytesLeft) {
      this.#bytesLeft -= bytes
      return undefined
    }
    const allowed = this.#bytesLeft
    this.#bytesLeft = Number.POSITIVE_INFINITY
    return allowed
  }
}

type Rules = {
  readonly silence: () => Promise<void> | undefined
  readonly trapFor: (message: ClientMessage) => Trap | undefined
  readonly allowed: (bytes: number) => number | undefined
}

/** A client's connection and its connection to the server. A chunk that waits delays all later chunks of its stream. */
class Link {
  readonly #client: Socket
  readonly #server: Socket
  readonly #rules: Rules
  readonly #splitter = new MessageSplitter()
  /** The trap that stops the next answer. */
  #trap: Trap | undefined

  constructor(client: Socket, server: Socket, rules: Rules) {
    this.#client = client
    this.#server = server
    this.#rules = rules
    for (const socket of [client, server]) {
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => this.cut())
    }
    client.pipe(asyncTransform((chunk, pass) => this.#toServer(chunk, pass))).pipe(server)
    server.pipe(asyncTransform((chunk, pass) => this.#toClient(chunk, pass))).pipe(client)
  }

  cut(): void {
    this.#client.destroy()
    this.#server.destroy()
  }

  async #toServer(chunk: Buffer, pass: (bytes: Buffer) => void): Promise<void> {
    for (const message of this.#splitter.push(chunk)) {
      await this.#rules.silence()
      const trap = this.#rules.trapFor(message)
      if (trap?.moment === 'sent') await this.#stopAt(trap)
      else if (trap !== undefined) this.#trap = trap
      const allowed = this.#rules.allowed(message.bytes.length)
      pass(message.bytes.subarray(0, allowed))
      // Forwarded bytes are written in this turn of the event loop.
      if (allowed !== undefined) setImmediate(() => this.cut())
    }
  }

  async #toClient(chunk: Buffer, pass: (bytes: Buffer) => void): Promise<void> {
    await this.#rules.silence()
    const trap = this.#trap
    this.#trap = undefined
    if (trap !== undefined) await this.#stopAt(trap)
    pass(chunk)
  }

  #stopAt({ trigger }: Trap): Promise<void> {
    return new Promise((resolve) => trigger({ pass: resolve, cut: () => this.cut() }))
  }
}

function asyncTransform(pass: (chunk: Buffer, push: (bytes: Buffer) => void) => Promise<void>): Transform {
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      pass(chunk, (bytes) => this.push(bytes)).then(
        () => done(),
        (error: Error) => done(error),
      )
    },
  })
}
