/**
 * Whether the files that this process has open still have their names (issue 11, A4). SQLite goes on with files that
 * were deleted, moved or replaced. A newcomer then has other ones, and another index of the log (`-shm`): neither sees
 * the writes and the locks of the other, and the owner's token is read in vain.
 */
import { statSync } from 'node:fs'

const PARTS = ['', '-wal', '-shm']

export class OpenFiles {
  readonly #files: ReadonlyMap<string, string | undefined>

  /** The files of a database that was just opened and read. */
  constructor(file: string) {
    this.#files = new Map(PARTS.map((part) => [`${file}${part}`, identityOf(`${file}${part}`)]))
  }

  /** Takes some microseconds. */
  haveTheirNames(): boolean {
    for (const [file, identity] of this.#files) if (identityOf(file) !== identity) return false
    return true
  }
}

function identityOf(file: string): string | undefined {
  const stats = statSync(file, { throwIfNoEntry: false })
  return stats && `${stats.dev}:${stats.ino}`
}
