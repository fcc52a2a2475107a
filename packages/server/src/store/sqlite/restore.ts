/**
 * `latchkey restore`: puts a copy of the embedded database in the place of the present one. The new file is complete
 * and its fence is raised before it gets its name, because a new host has no witness of what the copy lacks.
 *
 *     copy FILE -> check -> raise the fence in the copy -> latchkey.db.restoring -> move the present files aside
 *     -> latchkey.db
 *
 * While `latchkey.db.restoring` exists, nothing opens the directory (require-own-log.ts). So the same command can be
 * repeated after a crash at any moment, and nothing that was there is ever deleted.
 */
import { chmodSync, copyFileSync, existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sync } from '../data-directory.ts'
import { lockDirectory } from '../lock-file.ts'
import { StoreError } from '../store-error.ts'
import type { WitnessPlace } from '../witness-place.ts'
import { recogniseCopies } from '../witness.ts'
import { makeComplete } from './complete-file.ts'
import { lastWriteTs, raiseFence } from './fence-rows.ts'
import { settleLog, witnessesOf } from './fence-commands.ts'
import { DATABASE_FILE, openDatabaseFile } from './open-database.ts'
import { Owner } from './owner.ts'
import { Positions } from './positions.ts'
import { logOf } from './require-own-log.ts'

export type RestoreOptions = {
  /** The data directory. */
  readonly directory: string
  /** The copy. */
  readonly file: string
  /** The place of the witnesses; undefined without one. */
  readonly fence?: WitnessPlace | undefined
  /** Milliseconds since 1970. */
  readonly now: number
  readonly onStep: (step: RestoreStep) => void
}

export type RestoreStep =
  | 'copy'
  | 'check'
  | 'raise the fence'
  | 'move the present files aside'
  | 'put in place'

export type RestoreSummary = {
  readonly file: string
  /** Where the present files are now. */
  readonly movedAside: readonly string[]
  /** How often the fence was raised. */
  readonly fence: number
  /** Devices that must upload one-time keys again, and the keys that they lose. */
  readonly devices: number
  readonly withdrawnKeys: number
  readonly droppedFallbackKeys: boolean
  /** Later writes are lost. Milliseconds since 1970; null when nothing was ever written. */
  readonly lastWriteTs: number | null
  /** The copy was made of a running server, without its log. */
  readonly isIncomplete: boolean
}

/** The files of a database next to it, in the order in which they are moved aside. */
const PARTS = ['', '-wal', '-shm', '-journal']

/** @throws {StoreError} when a server runs, or the copy cannot be used; the present database is then unchanged. */
export async function restoreDatabase(options: RestoreOptions): Promise<RestoreSummary> {
  const { directory, file, now, onStep } = options
  if (!existsSync(file)) throw new StoreError(`${file} does not exist.`)
  const lock = lockDirectory(directory)
  try {
    const present = join(directory, DATABASE_FILE)
    const incoming = `${present}.incoming`
    for (const part of PARTS) rmSync(`${incoming}${part}`, { force: true })
    onStep('copy')
    const { isIncomplete } = copy(file, incoming)
    onStep('check')
    makeComplete(incoming)
    onStep('raise the fence')
    const cost = await raise(incoming, options)
    sync(incoming)
    onStep('move the present files aside')
    renameSync(incoming, `${present}.restoring`)
    sync(directory)
    const movedAside = moveAside(present, now)
    onStep('put in place')
    renameSync(`${present}.restoring`, present)
    sync(directory)
    return { file: present, movedAside, isIncomplete, ...cost }
  } finally {
    lock.close()
  }
}

/** Copies the file, and its log if that belongs to it. */
function copy(file: string, incoming: string): { readonly isIncomplete: boolean } {
  const log = logOf(file)
  if (log.kind === 'foreign')
    throw new StoreError(`${log.finding} Move the file aside that is not of the backup.`)
  copyFileSync(file, incoming)
  chmodSync(incoming, 0o600)
  if (log.kind === 'present') copyFileSync(`${file}-wal`, `${incoming}-wal`)
  return { isIncomplete: log.kind === 'missing' }
}

type Cost = Pick<
  RestoreSummary,
  'fence' | 'devices' | 'withdrawnKeys' | 'droppedFallbackKeys' | 'lastWriteTs'
>

async function raise(file: string, { fence, now }: RestoreOptions): Promise<Cost> {
  const db = openDatabaseFile(file)
  try {
    Owner.take(db, () => {})
    settleLog(db)
    const written = lastWriteTs(db) ?? null
    const witnesses = witnessesOf(db, fence)
    // They have ended, so that the next start does not raise the fence again.
    const epochs = witnesses.flatMap(({ marks }) => [...marks.values()].map(({ epoch }) => epoch))
    const { devices, keys } = db.one<{ devices: number; keys: number }>(
      `select count(distinct device_num) as devices, coalesce(sum(count), 0) as keys from pools where count > 0`,
    ) ?? { devices: 0, keys: 0 }
    const { number, droppedFallbackKeys } = db.transaction((tx) =>
      raiseFence(tx, new Positions(tx), { reason: 'restored by command', epochs, byCommand: true }, now),
    )
    await recogniseCopies(witnesses)
    return { fence: number, devices, withdrawnKeys: keys, droppedFallbackKeys, lastWriteTs: written }
  } finally {
    db.close()
  }
}

function moveAside(present: string, now: number): string[] {
  const time = new Date(now).toISOString().replaceAll(/[-:]|\.\d+/g, '')
  const moved: string[] = []
  for (const part of PARTS) {
    if (!existsSync(`${present}${part}`)) continue
    const aside = freeName(`${present}.replaced-${time}`, part)
    renameSync(`${present}${part}`, aside)
    moved.push(aside)
  }
  return moved
}

/** A name that no file has: a restore may be repeated within a second. */
function freeName(base: string, part: string): string {
  for (let n = 1; ; n++) {
    const name = `${base}${n === 1 ? '' : `-${n}`}${part}`
    if (!existsSync(name)) return name
  }
}
