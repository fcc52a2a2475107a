/** Harmless events of the embedded database: none of them loses a write. */
import assert from 'node:assert/strict'
import { type EmbeddedInstallation, isRefusal } from './embedded-installation.ts'

export type HarmlessEvent = {
  readonly name: string
  /** While the server runs. */
  readonly under?: (installation: EmbeddedInstallation) => unknown
  /** After its end. */
  readonly happens?: (installation: EmbeddedInstallation) => unknown
}

export const HARMLESS: readonly HarmlessEvent[] = [
  { name: 'a start' },
  { name: 'three starts', happens: (it) => startAndStop(it, 2) },
  {
    name: 'a server is killed right after its start',
    happens: async (it) => (await it.start('as a process')).end(),
  },
  { name: 'the lock files of a stopped server are deleted', happens: (it) => it.deleteLocks() },
  { name: 'the installation is moved by mv', happens: (it) => it.rename() },
  {
    name: 'the installation is moved by cp -a, and "latchkey fence adopt"',
    happens: async (it) => {
      it.moveTo(it.copyAll())
      await assert.rejects(it.startAfter(), /fence adopt/)
      await it.adopt()
    },
  },
  {
    name: 'the installation is moved by tar, and "latchkey fence adopt"',
    happens: async (it) => {
      it.unpack(it.archive(), 'on another machine')
      await assert.rejects(it.startAfter(), /fence adopt/)
      await it.adopt()
    },
  },
  {
    name: 'a new container over the same volume, without its fence directory',
    happens: (it) => it.loseWitness(),
  },
  {
    name: 'a second server is refused by the lock',
    under: (it) => assert.rejects(it.startAfter(), isRefusal),
  },
  { name: 'a backup is made of the running server', under: (it) => it.backUp() },
  { name: 'a copy by VACUUM INTO is made of the running server', under: (it) => it.vacuumInto() },
  { name: 'a tar is made of the running server', under: (it) => it.archive() },
  { name: 'the state of the fence is read', happens: (it) => it.status() },
  { name: 'the database is checked', happens: (it) => assert.deepEqual(it.check(), []) },
  { name: 'chmod and touch of every file', happens: (it) => it.touchAll() },
  {
    name: 'a backup of the stopped server is put back, and "latchkey fence adopt"',
    happens: async (it) => {
      it.copyOver(await it.backUp(), 'log deleted')
      await it.adopt()
    },
  },
  {
    name: 'the present files of the database are copied and put back',
    happens: (it) => it.putBackDatabase(it.copyDatabase()),
  },
]

async function startAndStop(it: EmbeddedInstallation, times: number): Promise<void> {
  for (let n = 0; n < times; n++) await (await it.startAfter()).end()
}
