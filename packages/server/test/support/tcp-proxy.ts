/** A TCP proxy of the test's own, so that a test can cut connections as a network or a killed process does. */
import { connect, createServer, type Server, type Socket } from 'node:net'

export class TcpProxy {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly port: number

  /** Stands before `host:port` of a URL. */
  static async before({ hostname, port }: URL): Promise<TcpProxy> {
    const proxy: { opened?: TcpProxy } = {}
    const server = createServer((socket) => proxy.opened?.serve(socket, Number(port), hostname))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    return (proxy.opened = new TcpProxy(server))
  }

  private constructor(server: Server) {
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
    this.#server = server
    this.port = address.port
  }

  serve(client: Socket, port: number, host: string): void {
    const target = connect(port, host)
    for (const [socket, other] of [
      [client, target],
      [target, client],
    ] as const) {
      this.#sockets.add(socket)
      socket.setNoDelay(true)
      socket.on('error', () => {})
      socket.on('close', () => {
        this.#sockets.delete(socket)
        other.destroy()
      })
    }
    client.pipe(target).pipe(client)
  }

  /** Cuts every connection; new ones are served again. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  /** Cuts every connection and refuses new ones. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.cut()
    await closed
  }
}
