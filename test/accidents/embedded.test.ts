/**
 * Accidents and harmless events over the embedded database (table.ts). After an accident no key is issued twice: it was
 * not issued, the start was refused, or the fence rose. A harmless event raises nothing and refuses nothing.
 * ACCIDENTS_SAMPLE=n runs every n-th combination.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { EmbeddedInstallation, isRefusal } from './embedded-installation.ts'
import { ACCIDENTS, type Case, combine, HARMLESS } from './table.ts'

const SAMPLE = Number(process.env['ACCIDENTS_SAMPLE'] ?? 1)

suite('accidents', () => {
  for (const one of combine(ACCIDENTS, SAMPLE)) {
    test(one.name, async () => {
      await using installation = new EmbeddedInstallation(one)
      const happens = await haveAccident(installation, one)
      const { history } = installation
      try {
        await happens()
        const store = await installation.open(one.clockOffsetMs)
        await installation.claim(store, 12)
      } catch (error) {
        if (!isRefusal(error)) throw error
        history.refusals++
      }
      history.assertOnce()
      assert.ok(history.count >= 6, 'the case claimed nothing')
    })
  }
})

/** Runs up to the accident, and returns it. */
async function haveAccident(
  installation: EmbeddedInstallation,
  { kind, clockOffsetMs }: Case<(typeof ACCIDENTS)[number]>,
): Promise<() => Promise<void>> {
  const first = await installation.begin()
  await installation.claim(first, 3)
  const backup = await installation.backUp()
  const files = installation.copyDatabase()
  await installation.claim(first, 3)
  if (kind.startsWith('the lock is deleted')) {
    return async () => {
      const servers = [first]
      for (let n = kind.includes('two more') ? 2 : 1; n > 0; n--) {
        installation.deleteLocks()
        servers.push(await installation.open(clockOffsetMs))
        for (const server of servers) await installation.claim(server, 2)
      }
      for (const server of servers) await server.close()
    }
  }
  await installation.end(first)
  return async () => {
    switch (kind) {
      case 'an online backup is copied over the database, its log stays':
        return installation.copyOver(backup, { log: 'stays' })
      case 'an online backup is copied over the database, its log is deleted':
        return installation.copyOver(backup, { log: 'is deleted' })
      case 'the database and its log are put back together from a copy of the files':
        return installation.putBackDatabase(files)
      case 'the log is deleted':
        return installation.deleteLog()
      case 'an online backup is put back by "latchkey restore"':
        return installation.restore(backup)
      case 'an online backup is put back by "latchkey restore", and the witness is lost':
        installation.loseWitness()
        return installation.restore(backup)
      case 'an online backup is put back, and the witness was copied to a second name':
        installation.copyWitness()
        return installation.copyOver(backup, { log: 'is deleted' })
      case 'an online backup is put back twice': {
        installation.copyOver(backup, { log: 'is deleted' })
        const again = await installation.open(clockOffsetMs)
        await installation.claim(again, 3)
        await again.close()
        return installation.copyOver(backup, { log: 'is deleted' })
      }
      case 'the lock is deleted, and a second server starts':
      case 'the lock is deleted, and two more servers start':
    }
  }
}

suite('harmless events', () => {
  for (const one of combine(HARMLESS, SAMPLE)) {
    test(one.name, async () => {
      await using installation = new EmbeddedInstallation(one)
      const first = await installation.begin()
      await installation.claim(first, 6)
      await happen(installation, one, first)
      const store = await installation.open(one.clockOffsetMs)
      await installation.claim(store, 6)
      assert.equal(installation.raises, 0)
      assert.equal(installation.history.refusals, 0)
      assert.equal(installation.history.count, 12)
      installation.history.assertOnce()
    })
  }
})

async function happen(
  installation: EmbeddedInstallation,
  { kind, clockOffsetMs }: Case<(typeof HARMLESS)[number]>,
  first: Awaited<ReturnType<EmbeddedInstallation['open']>>,
): Promise<void> {
  if (kind === 'a second server is refused by the lock') await assert.rejects(installation.open(), isRefusal)
  if (kind === 'a backup is made') await installation.backUp()
  await installation.end(first)
  switch (kind) {
    case 'three restarts':
    case 'a start without work, and another one':
      for (let n = 0; n < (kind === 'three restarts' ? 2 : 1); n++)
        await (await installation.open(clockOffsetMs)).close()
      return
    case 'a reboot':
      return installation.deleteLocks()
    case 'the data directory is renamed':
      return installation.rename()
    case 'the status of the fence is read':
      return void (await installation.status())
    case 'the structure of the database is checked':
      return assert.deepEqual(installation.check(), [])
    case 'the present files are copied and put back unchanged':
      return installation.putBackDatabase(installation.copyDatabase())
    case 'a restart':
    case 'a second server is refused by the lock':
    case 'a backup is made':
  }
}
