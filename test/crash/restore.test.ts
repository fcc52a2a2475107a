/**
 * Restores the embedded database from a copy made before claims, with real processes: the fence is raised, and no key
 * is issued twice. If the witness was restored too, only the first sync can detect it. CRASH_ROUNDS sets the rounds.
 */
import assert from 'node:assert/strict'
import { cpSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type ServerProcess, startProcess } from '@latchkey/testing/server-process.ts'
import { registerAll } from './check.ts'
import { Ledger } from './ledger.ts'
import { Client } from './load.ts'
import { type Answer, claim, type Device, send, upload } from './operations.ts'

const ROUNDS = Math.ceil(Number(process.env['CRASH_ROUNDS'] ?? 2) / 2)
const CLAIMS = 10

/** A server over files that can be restored, a device with keys, and a claimer. */
class Installation {
  readonly ledger = new Ledger()
  readonly #directory = mkdtempSync(join(tmpdir(), 'latchkey-restore-'))
  readonly #data = join(this.#directory, 'data')
  #server: ServerProcess | undefined
  #devices: readonly Device[] = []
  #copies = 0

  async start(): Promise<void> {
    this.#server = await startProcess(this.#data, ['--registration', 'open', '--limits', 'off'])
    if (this.#devices.length === 0) this.#devices = await registerAll(this.client)
  }

  get client(): Client {
    return new Client(this.#running.url)
  }

  get owner(): Device {
    return this.#devices[0] ?? assert.fail()
  }

  get other(): Device {
    return this.#devices[1] ?? assert.fail()
  }

  /** How often the running server has raised the fence. */
  get alarms(): number {
    return this.#running.alarms()
  }

  /** Stops or kills the server and copies its files. Resolves with the copy's directory. */
  async stopAndCopy(how: 'stop' | 'kill'): Promise<string> {
    await this.#running[how]()
    const copy = join(this.#directory, `${this.#copies++}`)
    cpSync(this.#data, copy, {
      recursive: true,
      filter: (file) => !file.includes('lock') && !lstatSync(file).isSocket(),
    })
    return copy
  }

  /** @param witness whether the witness is restored too or stays unchanged */
  async restore(copy: string, { witness }: { readonly witness: boolean }): Promise<void> {
    await this.#running.kill()
    const chosen = (name: string): boolean =>
      !name.includes('lock') && (witness || !name.startsWith('fence-'))
    for (const name of readdirSync(this.#data).filter((file) => file.startsWith('latchkey.db')))
      rmSync(join(this.#data, name))
    // In place, as a snapshot: a witness that was restored as a file is refused.
    for (const name of readdirSync(copy).filter(chosen))
      writeFileSync(join(this.#data, name), readFileSync(join(copy, name)))
  }

  async fill(): Promise<void> {
    for (let batch = 0; batch < 5; batch++) await upload(this.client, this.ledger, this.owner)
  }

  async claimSome(): Promise<void> {
    for (let n = 0; n < CLAIMS; n++) await claim(this.client, this.ledger, this.other, [this.owner])
  }

  sync({ token }: Device, since?: string): Promise<Answer> {
    const from = since === undefined ? '' : `&since=${since}`
    return this.client.call('GET', `/_matrix/client/v3/sync?timeout=0${from}`, token)
  }

  async close(): Promise<void> {
    await this.#server?.kill()
    rmSync(this.#directory, { recursive: true, force: true })
  }

  get #running(): ServerProcess {
    if (this.#server === undefined) throw new Error('no server was started')
    return this.#server
  }
}

async function inInstallation(run: (installation: Installation) => Promise<void>): Promise<void> {
  const installation = new Installation()
  try {
    await installation.start()
    await run(installation)
  } finally {
    await installation.close()
  }
}

test(`a start over a restored database file raises the fence, ${ROUNDS} times each after a stop and a kill`, async () => {
  await inInstallation(async (installation) => {
    const { ledger } = installation
    for (let round = 0; round < ROUNDS; round++) {
      for (const how of ['stop', 'kill'] as const) {
        await installation.fill()
        const copy = await installation.stopAndCopy(how)
        await installation.start()
        assert.equal(installation.alarms, 0)
        await installation.claimSome()
        ledger.lossBegins()
        await installation.restore(copy, { witness: false })
        ledger.fenced()
        await installation.start()
        assert.equal(installation.alarms, 1)
        await installation.claimSome()
        await installation.fill()
        await installation.claimSome()
      }
    }
    assert.ok(ledger.acknowledged.claimedKeys > ROUNDS * CLAIMS)
  })
})

test(`after a restore with the witness, the first newer sync token raises the fence, ${ROUNDS} times`, async () => {
  await inInstallation(async (installation) => {
    const { ledger, owner, other } = installation
    for (let round = 0; round < ROUNDS; round++) {
      await installation.fill()
      const copy = await installation.stopAndCopy('kill')
      await installation.start()
      await installation.claimSome()
      await send(installation.client, ledger, other, owner)
      const { body: told } = await installation.sync(owner)
      ledger.lossBegins()
      await installation.restore(copy, { witness: true })
      await installation.start()
      // The process cannot detect the rollback: a claim now may return a key that was issued before.
      assert.equal(installation.alarms, 0)
      const { body } = await installation.sync(owner, String(told['next_batch']))
      assert.equal(installation.alarms, 1)
      assert.deepEqual(body['device_one_time_keys_count'], { signed_curve25519: 0 })
      ledger.fenced()
      // Devices that have not synced yet get no earlier key either.
      await installation.claimSome()
      await installation.fill()
      await installation.claimSome()
      await installation.sync(owner, String(told['next_batch']))
      assert.equal(installation.alarms, 1)
    }
  })
})
