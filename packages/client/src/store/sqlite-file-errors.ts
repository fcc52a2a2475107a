/** Maps failures of SQLite and the file system to `StoreError`. */
import { StaleStoreError, StoreError } from './store.ts'

/**
 * SQLite's primary result codes that indicate damaged content: ERROR (missing tables), CORRUPT, CONSTRAINT, MISMATCH,
 * FORMAT, NOTADB.
 */
const DAMAGE = new Set([1, 11, 19, 20, 24, 26])
/** SQLite's primary result codes BUSY and LOCKED. */
const BUSY = new Set([5, 6])

export function isBusy(error: unknown): boolean {
  return BUSY.has(resultCode(error) ?? -1)
}

/** Errors of SQLite and the file system as a StoreError; any other error unchanged. */
export function asStoreError(file: string, error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof StoreError || error instanceof StaleStoreError)
    return error
  const code = resultCode(error)
  if (code !== undefined && DAMAGE.has(code)) return corrupted(file, error.message, { cause: error })
  if (code === undefined && !('syscall' in error)) return error
  return new StoreError(
    'unreadable',
    `${file} cannot be used: ${error.message}. Check the path, permissions and free space.`,
    { cause: error },
  )
}

function resultCode(error: unknown): number | undefined {
  return error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined
}

export function corrupted(path: string, what: string, options?: ErrorOptions): StoreError {
  return new StoreError(
    'corrupted',
    `${path} is damaged: ${what}. Restore it from a copy, or remove it and log in as a new device.`,
    options,
  )
}
