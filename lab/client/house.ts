/** What runs share: the real server, libolm, and the senders. The server can be set back to a backup. */
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { loadOlm, type Olm } from './load-olm.ts'
import { Senders } from './senders.ts'

/** More than any scenario opens at once. */
const MAX_KEPT_CONNECTIONS = 64

export class House {
  readonly olm: Olm
  readonly senders: Senders
  readonly #directory: string
  #server: TestServer

  private constructor(olm: Olm, directory: string, server: TestServer) {
    this.olm = olm
    this.#directory = directory
    this.#server = server
    this.senders = new Senders(server.url)
  }

  static async open(): Promise<House> {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-lab-'))
    const server = await startTestServer({ dataDir: join(directory, 'data') })
    return new House(await loadOlm(), directory, server)
  }

  get url(): string {
    return this.#server.url
  }

  /** For files of a run. */
  get directory(): string {
    return this.#directory
  }

  /** What an operator's nightly copy of the data directory is. */
  async backUpServer(): Promise<void> {
    await this.#whileStopped(() => {
      cpSync(join(this.#directory, 'data'), join(this.#directory, 'copy'), { recursive: true })
    })
  }

  /**
   * The copy comes back, on a server without a rollback fence: its witness goes back with it, and it does not know its own
   * sync tokens any more. With either Latchkey notices by itself, and there is nothing for a client to heal.
   */
  async restoreServer(): Promise<void> {
    await this.#whileStopped(() => {
      const data = join(this.#directory, 'data')
      rmSync(data, { recursive: true })
      cpSync(join(this.#directory, 'copy'), data, { recursive: true })
      const db = new DatabaseSync(join(data, 'latchkey.db'))
      db.exec(`update meta set value = 'another' where key = 'token_secret'`)
      db.close()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.senders.close()
    await this.#server.close()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  /** The server comes back under the same address: its clients notice a lost connection at most. */
  async #whileStopped(work: () => void): Promise<void> {
    const port = Number(new URL(this.url).port)
    await this.#server.close()
    work()
    this.#server = await startTestServer({ dataDir: join(this.#directory, 'data'), port })
    // Connections to the former server that `fetch` still keeps fail when they are tried: here, and not in a scenario.
    const probes = Array.from({ length: MAX_KEPT_CONNECTIONS }, () =>
      fetch(`${this.url}/_matrix/client/versions`),
    )
    await Promise.allSettled(probes)
  }
}
