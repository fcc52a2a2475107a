/**
 * The data directory and who may read it: the owner alone, whatever the umask. SQLite gives its log and its shared
 * memory the mode of the database they belong to.
 */
import { accessSync, closeSync, constants, mkdirSync, openSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

/**
 * Makes the directory, with those above it, unless it is there; in any case it can be read and written.
 *
 * @throws the system's error, which names the path.
 */
export function prepareDirectory(directory: string): void {
  makeDirectory(resolve(directory))
  accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK)
}

/** A step at a time: `mkdirSync` with `recursive` never returns where directories cannot be made, below `/proc`. */
function makeDirectory(directory: string): void {
  if (statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return
  const parent = dirname(directory)
  if (parent !== directory) makeDirectory(parent)
  try {
    mkdirSync(directory, { mode: 0o700 })
  } catch (error) {
    // Another process may have made it meanwhile.
    if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) throw error
  }
}

/** Makes a file that only its owner can read, unless it is there: then its mode is the operator's choice. */
export function preparePrivateFile(file: string): void {
  closeSync(openSync(file, 'a', 0o600))
}
