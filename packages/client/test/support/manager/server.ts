/** A server that can be restored from a backup and raise its epoch: stopped, changed, restarted on the same port. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { copyInPlace } from '@latchkey/testing/directory-snapshot.ts'
import { REFUSING, startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'

export class RestorableServer {
  readonly url: string
  readonly #dataDir: string
  readonly #backup: string
  #server: TestServer

  private constructor(server: TestServer, dataDir: string) {
    this.url = server.url
    this.#server = server
    this.#dataDir = dataDir
    this.#backup = mkdtempSync(join(tmpdir(), 'latchkey-backup-'))
  }

  static async start(): Promise<RestorableServer> {
    const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-manager-'))
    return new RestorableServer(await startTestServer({ ...REFUSING, dataDir }), dataDir)
  }

  backUp(): Promise<void> {
    return this.#whileStopped(() => copyInPlace(this.#dataDir, this.#backup))
  }

  goBack(): Promise<void> {
    return this.#whileStopped(() => copyInPlace(this.#backup, this.#dataDir))
  }

  raiseEpoch(): Promise<void> {
    return this.#whileStopped(() => {
      const db = new DatabaseSync(join(this.#dataDir, 'latchkey.db'))
      db.prepare("update meta set value = ? where key = 'epoch'").run(crypto.randomUUID())
      db.close()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.close()
    for (const dir of [this.#dataDir, this.#backup]) rmSync(dir, { recursive: true, force: true })
  }

  async #whileStopped(work: () => void): Promise<void> {
    await this.#server.close()
    work()
    this.#server = await startTestServer({
      ...REFUSING,
      dataDir: this.#dataDir,
      port: Number(new URL(this.url).port),
    })
    await untilReachable(this.url)
  }
}

/** Uses up pooled connections to the former server, until one reaches the new one. */
export async function untilReachable(url: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const answer = await fetch(`${url}/_matrix/client/versions`).catch(() => undefined)
    if (answer?.ok === true) return
  }
  throw new Error(`${url} did not restart`)
}
