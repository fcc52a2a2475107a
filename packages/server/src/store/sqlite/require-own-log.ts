/**
 * The check before SQLite opens a database: that its write-ahead log belongs to its main file (issue 11, A1). SQLite
 * applies any intact log to any file. A log that a killed process left next to a restored backup makes a mixture of
 * both: the counters of the fence are new, and the keys are old.
 *
 * A log has every page that was changed since the checkpoint before it. So it belongs to the file of that checkpoint,
 * and to what a later checkpoint of this log made of it. Those are the files whose header it has (checkpoints.ts):
 *
 *     stamp in file   log                                                       verdict
 *     any             has the stamp, with the same schema cookie                they belong together
 *     0               begins with stamp 0, or has no header at all              written by an earlier version
 *     even            no log file, or an empty one                              its log is missing
 *     even            a log file without a transaction                          a crash right after a checkpoint
 *     odd             no log, or one without a transaction                      closed, or a copy of one instant
 *     anything else                                                             they are of different moments
 */
import { closeSync, existsSync, openSync, readSync, realpathSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { StoreError } from '../store-error.ts'
import { type Header, LOG_HEADER_BYTES, readHeader, readLoggedHeaders } from './log-file.ts'

/** A server that runs next to this process may write a checkpoint between the two reads. */
const READS = 10

/**
 * Reads both files and changes neither.
 *
 * @throws {StoreError} when they do not belong together.
 */
export function requireOwnLog(file: string): void {
  if (existsSync(`${file}.restoring`)) {
    throw new StoreError(
      `A restore of ${file} did not end: run "latchkey restore FILE" again. Nothing was opened or changed.`,
    )
  }
  const { kind, finding } = logOf(file)
  if (kind !== 'foreign' && kind !== 'missing') return
  throw new StoreError(
    `${finding} Keys could be issued twice, so nothing was opened or changed. ` +
      `Restore a backup with "latchkey restore FILE", which moves these files aside (in ${dirname(file)}).`,
  )
}

export type LogOf =
  /** `absent`: the file is complete alone. */
  | { readonly kind: 'present' | 'absent'; readonly finding?: never }
  | { readonly kind: 'missing' | 'foreign'; readonly finding: string }

/** Compares a database file with the log that is next to it. */
export function logOf(name: string): LogOf {
  const file = realFile(name)
  let log: LogOf = { kind: 'absent' }
  for (let read = 0; read < READS; read++) {
    const header = readHeader(file)
    log = compare(file, header)
    if (log.finding === undefined || header?.stamp === readHeader(file)?.stamp) break
  }
  return log
}

/** The file behind a symbolic link: SQLite keeps the log next to it. */
export function realFile(file: string): string {
  return existsSync(file) ? realpathSync(file) : file
}

function compare(file: string, header: Header | undefined): LogOf {
  const log = `${file}-wal`
  const logged = readLoggedHeaders(log)
  if (header === undefined) {
    if (logged === undefined) return { kind: 'absent' }
    const state = existsSync(file) ? 'empty, or not a database' : 'missing'
    return { kind: 'foreign', finding: `${log} has writes of a database, but ${file} is ${state}.` }
  }
  if (header.stamp !== 0 && hasRollbackJournal(file)) {
    const finding = `${file}-journal is not a file of this database, and SQLite would write it over ${file}.`
    return { kind: 'foreign', finding }
  }
  if (logged === undefined) {
    const isComplete = header.stamp === 0 || header.stamp % 2 === 1
    if (isComplete || sizeOf(log) >= LOG_HEADER_BYTES) return { kind: 'absent' }
    const finding = `${file} is incomplete: it was copied, or left by a crash, with a log ${log} that is missing.`
    return { kind: 'missing', finding }
  }
  const belongs =
    header.stamp === 0
      ? (logged[0]?.stamp ?? 0) === 0
      : logged.some(
          ({ stamp, schemaCookie }) => stamp === header.stamp && schemaCookie === header.schemaCookie,
        )
  if (belongs) return { kind: 'present' }
  const finding = `${file} and ${log} do not belong together: one of them was restored or copied without the other.`
  return { kind: 'foreign', finding }
}

/** Whether there is a rollback journal that SQLite would apply. A database in WAL mode has none. */
function hasRollbackJournal(file: string): boolean {
  const journal = `${file}-journal`
  if (sizeOf(journal) === 0) return false
  const fd = openSync(journal, 'r')
  try {
    const first = Buffer.alloc(1)
    return readSync(fd, first, 0, 1, 0) === 1 && first[0] !== 0
  } finally {
    closeSync(fd)
  }
}

function sizeOf(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0
}
