/**
 * Repeated kill -9 at a random answer under mixed load on one database: no key is issued twice, no acknowledged
 * upload, claim, reset or message is lost. CRASH_ROUNDS sets the number of rounds.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { randomInt } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startProcess } from '@latchkey/testing/server-process.ts'
import { checkAll, registerAll } from './check.ts'
import { Ledger } from './ledger.ts'
import { Client, runLoad } from './load.ts'
import type { Device } from './operations.ts'

const ROUNDS = Number(process.env['CRASH_ROUNDS'] ?? 8)
const MAX_ANSWERS = 300

test(`nothing acknowledged is lost and no key issued twice through ${ROUNDS} kills`, async (t) => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-crash-'))
  const ledger = new Ledger()
  const sinceByDevice = new Map<string, string>()
  let devices: readonly Device[] = []
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const server = await startProcess(dataDir, ['--registration', 'open', '--limits', 'off'])
      if (round === 0) devices = await registerAll(new Client(server.url))
      else await checkAll(new Client(server.url), ledger, devices, sinceByDevice)
      let answersLeft = randomInt(1, MAX_ANSWERS)
      const killed = Promise.withResolvers<void>()
      const client = new Client(server.url, () => {
        if (--answersLeft === 0) killed.resolve(server.kill())
      })
      await runLoad(client, ledger, devices)
      await killed.promise
    }
    const server = await startProcess(dataDir)
    await checkAll(new Client(server.url), ledger, devices, sinceByDevice)
    await server.stop()
    t.diagnostic(`acknowledged: ${JSON.stringify(ledger.acknowledged)}`)
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
})
