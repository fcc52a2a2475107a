/**
 * Accidents and harmless events over the embedded database. After an accident no key is issued twice: it was not
 * issued, the start was refused, or the fence rose; a refused operator does as the message says. A harmless event
 * raises nothing and refuses nothing. ACCIDENTS_SAMPLE=n runs every n-th combination.
 */
import assert from 'node:assert/strict'
import { after, suite, test } from 'node:test'
import { ACCIDENTS, type Accident } from './embedded-accidents.ts'
import { HARMLESS } from './embedded-harmless.ts'
import { EmbeddedInstallation, isRefusal } from './embedded-installation.ts'
import type { Server } from './server.ts'
import { type Case, type Circumstances, combine } from './table.ts'

suite('accidents', { concurrency: 2 }, () => {
  const outcomes = { refused: 0, raised: 0, 'lost nothing': 0 }
  after(() => process.stdout.write(`accidents: ${JSON.stringify(outcomes)}\n`))

  for (const one of combine(ACCIDENTS)) {
    test(one.name, async () => {
      await using installation = new EmbeddedInstallation(one)
      const isRefused = await haveAccident(installation, one)
      const { history, raises } = installation
      history.assertOnce()
      assert.ok(history.count >= 6, 'the case claimed nothing')
      outcomes[isRefused ? 'refused' : raises > 0 ? 'raised' : 'lost nothing']++
    })
  }
})

/** Returns whether the start afterwards, or a server that went on, was refused. */
async function haveAccident(it: EmbeddedInstallation, one: Case<Accident>): Promise<boolean> {
  const { kind, end } = one
  let server = await begin(it, end)
  await it.claim(server, 3)
  const saved = (await kind.saves?.(it)) ?? ''
  const backup = kind.saves === undefined ? undefined : await it.backUp()
  server = await goOn(it, end, server)
  await it.claim(server, 3)
  if (kind.isUnderServer !== true) await server.end()
  await kind.happens(it, saved, server)
  let isRefused = it.history.refusals > 0
  for (;;) {
    try {
      const next = await it.startAfter()
      await it.claim(next, 12)
      return isRefused
    } catch (error) {
      if (!isRefusal(error) || isRefused) throw error
      isRefused = true
      if (error.message.includes('latchkey fence raise')) await it.raise()
      else if (backup !== undefined && error.message.includes('latchkey restore')) await it.restore(backup)
      else return true
    }
  }
}

suite('harmless events', { concurrency: 2 }, () => {
  for (const one of combine(HARMLESS)) {
    test(one.name, async () => {
      await using installation = new EmbeddedInstallation(one)
      const { kind, end } = one
      let server = await begin(installation, end)
      await installation.claim(server, 3)
      server = await goOn(installation, end, server)
      await installation.claim(server, 3)
      await kind.under?.(installation)
      await server.end()
      await kind.happens?.(installation)
      await installation.claim(await installation.startAfter(), 6)
      assert.equal(installation.raises, 0)
      assert.equal(installation.history.refusals, 0)
      assert.equal(installation.history.count, 12)
      installation.history.assertOnce()
    })
  }
})

function begin(it: EmbeddedInstallation, end: Circumstances['end']): Promise<Server> {
  return it.start(end === 'killed' ? 'as a process' : 'in this process', true)
}

/** The server of the last claims: another one after a restart. */
async function goOn(it: EmbeddedInstallation, end: Circumstances['end'], server: Server): Promise<Server> {
  if (end !== 'restarted and killed') return server
  await server.end()
  return it.start('as a process')
}
