/** Text of a failure for stderr: one readable line if the operator can fix it, the stack trace for a bug. */
import { ConfigError } from '../config/config-error.ts'
import { CommandRefused } from '../control/control-client.ts'
import { MatrixError } from '../matrix-error.ts'
import { StoreError } from '../store/store-error.ts'

/** Wrong usage that the option parser could not detect; the message says what was expected. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Workers could not start; the message comes from one of them and is meant for the operator. */
export class WorkerFailure extends Error {
  override readonly name = 'WorkerFailure'
}

export function describeFailure(error: unknown): string {
  if (error instanceof ConfigError)
    return error.problems.map((problem) => `Configuration: ${problem}`).join('\n')
  const expected = [StoreError, MatrixError, UsageError, WorkerFailure, CommandRefused]
  if (error instanceof Error && expected.some((kind) => error instanceof kind)) return error.message
  if (!(error instanceof Error)) return `Unexpected error: ${String(error)}`
  return describeSystemError(error) ?? `Unexpected error, please report it: ${error.stack ?? error.message}`
}

type SystemError = Error & {
  readonly code?: unknown
  readonly errcode?: unknown
  readonly address?: unknown
  readonly port?: unknown
  readonly path?: unknown
  readonly syscall?: unknown
}

function describeSystemError(error: SystemError): string | undefined {
  const address = `${String(error.address)}:${String(error.port)}`
  const path = String(error.path)
  switch (error.code) {
    case 'EADDRINUSE':
      return `${address} is already in use by another program. Stop it, or choose another --port.`
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `This machine has no address ${String(error.address ?? Reflect.get(error, 'hostname'))}. Choose another --host.`
    case 'EACCES':
    case 'EPERM':
      return error.port === undefined
        ? `No permission for ${path}. Give this user access, or choose another --data directory.`
        : `No permission to listen on ${address}. Choose a --port above 1023.`
    case 'EEXIST':
    case 'ENOTDIR':
      return `${path} is not a directory. Choose another --data directory.`
    case 'ENOENT':
      return error.syscall === 'mkdir'
        ? `The directory ${path} cannot be created there. Choose another --data directory.`
        : undefined
    case 'EROFS':
    case 'ENOSPC':
      return `${path} is not writable (${error.code}). Free disk space, or choose another --data directory.`
    case 'ERR_SQLITE_ERROR':
      return describeSqliteError(error)
    default:
      return undefined
  }
}

/** Handles SQLite's primary result codes that concern the file, not a statement. */
function describeSqliteError(error: SystemError): string | undefined {
  switch (Number(error.errcode) & 0xff) {
    case 5: // SQLITE_BUSY
      return 'The database is busy: another process locked it for more than 5 seconds. Try again.'
    case 8: // SQLITE_READONLY
    case 14: // SQLITE_CANTOPEN
      return `The database cannot be opened for writing (${error.message}). Check the permissions of the --data directory.`
    case 13: // SQLITE_FULL
      return 'The disk is full.'
    case 10: // SQLITE_IOERR
    case 11: // SQLITE_CORRUPT
    case 26: // SQLITE_NOTADB
      return `The database cannot be read (${error.message}). Run "latchkey database check" for details; restore a backup with "latchkey restore FILE" if it is damaged.`
    default:
      return undefined
  }
}
