/** The real server that runs share, with libolm and the senders. It can be restored from a backup. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { copyInPlace } from '@latchkey/testing/directory-snapshot.ts'
import { REFUSING, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { loadOlm, type Olm } from './load-olm.ts'
import { Senders } from './senders.ts'

/** More connections than any scenario opens at once. */
const MAX_KEPT_CONNECTIONS = 64

export class LabServer {
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

  static async open(): Promise<LabServer> {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-lab-'))
    const server = await startTestServer({ ...REFUSING, dataDir: join(directory, 'data') })
    return new LabServer(await loadOlm(), directory, server)
  }

  get url(): string {
    return this.#server.url
  }

  /** Directory for the files of a run. */
  get directory(): string {
    return this.#directory
  }

  /** Copies the data directory, as an operator does every night. */
  async backUpServer(): Promise<void> {
    await this.#whileStopped(() => {
      copyInPlace(join(this.#directory, 'data'), join(this.#directory, 'copy'))
    })
  }

  /**
   * Restores the copy as a server without a rollback fence would: the witness is restored too, and the key of sync
   * tokens changes. Otherwise Latchkey detects the rollback itself, and the client has nothing to heal.
   */
  async restoreServer(): Promise<void> {
    await this.#whileStopped(() => {
      const data = join(this.#directory, 'data')
      copyInPlace(join(this.#directory, 'copy'), data)
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

  /** Restarts the server at the same address; clients only lose their connections. */
  async #whileStopped(work: () => void): Promise<void> {
    const port = Number(new URL(this.url).port)
    await this.#server.close()
    work()
    this.#server = await startTestServer({ ...REFUSING, dataDir: join(this.#directory, 'data'), port })
    // Connections that `fetch` kept to the previous server fail on first use: uses them here instead of in a scenario.
    const probes = Array.from({ length: MAX_KEPT_CONNECTIONS }, () =>
      fetch(`${this.url}/_matrix/client/versions`),
    )
    await Promise.allSettled(probes)
  }
}
