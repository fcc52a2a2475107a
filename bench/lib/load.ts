/**
 * A closed-loop load generator: keep-alive connections, each with one request at a time. It uses node:net because
 * node:http's client needs about as much CPU per request as the server under test, and faster packages have sixty
 * dependencies. It supports what the servers here answer: HTTP/1.1 with a Content-Length.
 */
import { connect, type Socket } from 'node:net'
import { performance } from 'node:perf_hooks'

export type Request = {
  readonly method: string
  readonly path: string
  readonly token?: string
  readonly body?: string
}
export type Answer = { readonly status: number; readonly body: Buffer }

export type LoadOptions = {
  /** Connections are distributed over several URLs. */
  readonly url: string | readonly string[]
  readonly connections: number
  /** Returns the next request; undefined ends that connection. */
  readonly next: () => Request | undefined
  readonly onAnswer?: (answer: Answer) => void
  /** Sends no request after this time; pending ones are completed. */
  readonly durationMs?: number
  /** False if this process has no core of its own; see `spin`. */
  readonly awake?: boolean
}

export type LoadResult = {
  readonly requests: number
  readonly seconds: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly failures: number
}

export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const urls = [options.url].flat()
  const latencies: number[] = []
  const begin = performance.now()
  const end = begin + (options.durationMs ?? Number.POSITIVE_INFINITY)
  let failures = 0
  const worker = async (url: string): Promise<void> => {
    const connection = await Connection.to(url)
    while (performance.now() < end) {
      const request = options.next()
      if (request === undefined) break
      const sent = performance.now()
      const answer = await connection.send(request)
      latencies.push(performance.now() - sent)
      if (answer.status !== 200) failures++
      options.onAnswer?.(answer)
    }
    connection.close()
  }
  const stopSpinning = options.awake === false ? () => {} : spin()
  await Promise.all(
    Array.from({ length: options.connections }, (_, n) => worker(urls[n % urls.length] ?? '')),
  )
  stopSpinning()
  const seconds = (performance.now() - begin) / 1000
  latencies.sort((a, b) => a - b)
  const requests = latencies.length
  return {
    requests,
    seconds,
    perSecond: requests / seconds,
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
    failures,
  }
}

/** Percentile of ascending numbers; 0 if there are none. */
export function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
}

/**
 * Keeps the event loop busy while a load runs. Otherwise each answer of a slow server wakes this process, which costs
 * that server about 15 us on a virtual machine, while a fast server finds it awake and the comparison is skewed.
 */
function spin(): () => void {
  let spinning = true
  const turn = (): void => {
    if (spinning) setImmediate(turn)
  }
  turn()
  return () => {
    spinning = false
  }
}

const HEAD_END = Buffer.from('\r\n\r\n')

/** One keep-alive connection. */
export class Connection {
  readonly #socket: Socket
  readonly #host: string
  #received: Buffer = Buffer.alloc(0)
  #answered: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined

  static to(url: string): Promise<Connection> {
    const { hostname, port } = new URL(url)
    return Connection.open(hostname, Number(port))
  }

  static async open(host: string, port: number): Promise<Connection> {
    const socket = connect({ host, port, noDelay: true })
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return new Connection(socket, host)
  }

  private constructor(socket: Socket, host: string) {
    this.#socket = socket
    this.#host = host
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    const fail = (): void => this.#answered?.reject(new Error('the connection was closed'))
    socket.on('error', fail).on('close', fail)
  }

  send({ method, path, token, body }: Request): Promise<Answer> {
    const authorization = token === undefined ? '' : `authorization: Bearer ${token}\r\n`
    const content =
      body === undefined
        ? ''
        : `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n`
    return new Promise((resolve, reject) => {
      this.#answered = { resolve, reject }
      this.#socket.write(
        `${method} ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${authorization}${content}\r\n${body ?? ''}`,
      )
    })
  }

  close(): void {
    this.#answered = undefined
    this.#socket.destroy()
  }

  #read(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
    const headEnd = this.#received.indexOf(HEAD_END)
    if (headEnd < 0) return
    const head = this.#received.toString('latin1', 0, headEnd)
    const [, length] = /\r\ncontent-length: (\d+)/i.exec(head) ?? []
    const bodyEnd = headEnd + HEAD_END.length + Number(length ?? 0)
    if (this.#received.length < bodyEnd) return
    const body = this.#received.subarray(headEnd + HEAD_END.length, bodyEnd)
    const answered = this.#answered
    this.#received = this.#received.subarray(bodyEnd)
    this.#answered = undefined
    answered?.resolve({ status: Number(head.slice(9, 12)), body })
  }
}
