/** The accidents of operators of the embedded database: after each, the database may be older than what was issued. */
import type { EmbeddedInstallation } from './embedded-installation.ts'
import type { Server } from './server.ts'

export type Accident = {
  readonly name: string
  /** A copy from before the last keys were issued; its path is passed to `happens`. */
  readonly saves?: (installation: EmbeddedInstallation) => string | Promise<string>
  /** The server runs while it happens. */
  readonly isUnderServer?: true
  readonly happens: (
    installation: EmbeddedInstallation,
    saved: string,
    server: Server,
  ) => void | Promise<void>
}

type Save = NonNullable<Accident['saves']>
const backup: Save = (it) => it.backUp()
const vacuumed: Save = (it) => it.vacuumInto()
const files: Save = (it) => it.copyDatabase()
const archive: Save = (it) => it.archive()

export const ACCIDENTS: readonly Accident[] = [
  {
    name: 'a backup is copied over the database, whose log stays',
    saves: backup,
    happens: (it, saved) => it.copyOver(saved, 'log stays'),
  },
  {
    name: 'a backup is copied over the database, whose log is deleted',
    saves: backup,
    happens: (it, saved) => it.copyOver(saved, 'log deleted'),
  },
  {
    name: 'a copy by VACUUM INTO is copied over the database, whose log stays',
    saves: vacuumed,
    happens: (it, saved) => it.copyOver(saved, 'log stays'),
  },
  {
    name: 'database and log, copied by cp from a running server, are put back',
    saves: files,
    happens: (it, saved) => it.putBackDatabase(saved),
  },
  {
    name: 'the database alone, copied by cp from a running server, is put back next to the present log',
    saves: files,
    happens: (it, saved) => it.copyOver(`${saved}/latchkey.db`, 'log stays'),
  },
  { name: 'the log is deleted', happens: (it) => it.deleteLog() },
  {
    name: 'a backup is put back by "latchkey restore"',
    saves: backup,
    happens: (it, saved) => it.restore(saved),
  },
  {
    name: 'the witness is lost, and a backup is put back by "latchkey restore"',
    saves: backup,
    happens: (it, saved) => {
      it.loseWitness()
      return it.restore(saved)
    },
  },
  {
    name: 'a backup is put back by "latchkey restore" on a new machine',
    saves: backup,
    happens: (it, saved) => it.restoreElsewhere(saved),
  },
  {
    name: 'a tar of everything, with the witness, is unpacked over the present files',
    saves: archive,
    happens: (it, saved) => it.unpack(saved, 'over the files'),
  },
  {
    name: 'a tar of everything, with the witness, is unpacked in an empty place',
    saves: archive,
    happens: (it, saved) => it.unpack(saved, 'in an empty place'),
  },
  {
    name: 'a tar of everything, with the witness, is unpacked on another machine',
    saves: archive,
    happens: (it, saved) => it.unpack(saved, 'on another machine'),
  },
  {
    name: 'a cp -a of everything is started, and the original issued keys since',
    saves: (it) => it.copyAll(),
    happens: (it, saved) => it.moveTo(saved),
  },
  {
    name: 'a backup is put back, and by rsync the witness of its time',
    saves: async (it) => {
      it.copyDatabase()
      return `${await it.backUp()} ${it.copyWitnesses()}`
    },
    happens: (it, saved) => {
      const [file = '', witnesses = ''] = saved.split(' ')
      it.copyOver(file, 'log deleted')
      it.putBackWitnesses(witnesses)
    },
  },
  {
    name: 'the witness was copied to a second name, and a backup is put back',
    saves: backup,
    happens: (it, saved) => {
      it.duplicateWitness()
      it.copyOver(saved, 'log deleted')
    },
  },
  {
    name: 'a backup is put back twice',
    saves: backup,
    happens: async (it, saved) => {
      it.copyOver(saved, 'log deleted')
      const again = await it.startAfter()
      await it.claim(again, 3)
      await again.end()
      it.copyOver(saved, 'log deleted')
    },
  },
  {
    name: 'the lock is deleted, and a second server starts',
    isUnderServer: true,
    happens: (it, _, server) => startWithoutLock(it, [server], 1),
  },
  {
    name: 'the lock and the shared memory file are deleted, and a second server starts',
    isUnderServer: true,
    happens: (it, _, server) => {
      it.deleteSharedMemory()
      return startWithoutLock(it, [server], 1)
    },
  },
  {
    name: 'the lock is deleted, and two more servers start',
    isUnderServer: true,
    happens: (it, _, server) => startWithoutLock(it, [server], 2),
  },
]

/** All servers claim after each start. */
async function startWithoutLock(
  it: EmbeddedInstallation,
  servers: readonly Server[],
  more: number,
): Promise<void> {
  const running = [...servers]
  for (let n = 0; n < more; n++) {
    it.deleteLocks()
    running.push(await it.startAfter())
    for (const server of running) await it.claim(server, 2)
  }
  for (const server of running) await server.end()
}
