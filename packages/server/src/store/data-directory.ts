/**
 * The data directory and its permissions: only the owner may read it, regardless of the umask. SQLite gives its log and
 * its shared memory the mode of their database.
 */
import { accessSync, closeSync, constants, fsyncSync, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

/**
 * Creates the directory and its parents if they do not exist, and checks that it can be read and written.
 *
 * @throws the system's error, which names the path.
 */
export function prepareDirectory(directory: string): void {
  makeDirectory(resolve(directory))
  accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK)
}

/** One directory at a time, because `mkdirSync` with `recursive` never returns below `/proc`. */
function makeDirectory(directory: string): void {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return
  const parent = dirname(directory)
  if (parent !== directory) makeDirectory(parent)
  try {
    mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    // Another process may have created it.
    if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) throw error
  }
}

/** Creates a file that only its owner can read. The mode of an existing file is the operator's choice. */
export function preparePrivateFile(file: string): void {
  closeSync(openSync(file, 'a', 0o600))
}

/** Makes the content of a file durable; of a directory: the names of its files. */
export function sync(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
