/**
 * The place of a server's control socket: `control.sock` in its data directory. A path of a Unix socket has at most 107
 * bytes. If that of the directory is longer, the socket lies in a new private directory for files of running programs,
 * and `control-socket` in the data directory has its path.
 */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'

const NAME = 'control.sock'
const RECORD = 'control-socket'
/** `sun_path` of Linux has 108 bytes, of macOS and the BSDs 104, with the final zero. */
const MAX_BYTES = process.platform === 'linux' ? 107 : 103
/** The length of a path in a directory of `mkdtemp`: `/latchkey-XXXXXX/control.sock`. */
const SUFFIX_BYTES = '/latchkey-XXXXXX/'.length + NAME.length

export type SocketPlace = { readonly path: string; remove(): void }

/** The socket of the server that has a data directory open; it may not exist. */
export function findSocket(directory: string): string {
  const record = join(directory, RECORD)
  return existsSync(record) ? readFileSync(record, 'utf8') : join(resolve(directory), NAME)
}

/**
 * A free path for the socket. Only a process that has the lock of the directory calls it: a socket that is there was
 * left by a process that was killed.
 */
export function prepareSocket(directory: string): SocketPlace {
  removeSocket(directory)
  const standard = join(resolve(directory), NAME)
  if (Buffer.byteLength(standard) <= MAX_BYTES)
    return { path: standard, remove: () => removeSocket(directory) }
  const path = join(mkdtempSync(join(runtimeDirectory(), 'latchkey-')), NAME)
  writeFileSync(join(directory, RECORD), path, { mode: 0o600 })
  return { path, remove: () => removeSocket(directory) }
}

/** Makes a socket accessible to its owner only; until then the process's umask, which `listen` sets, does. */
export function makePrivate(path: string): void {
  chmodSync(path, 0o600)
}

function runtimeDirectory(): string {
  const candidates = [process.env['XDG_RUNTIME_DIR'], tmpdir(), '/tmp']
  const found = candidates.find(
    (path) => path && existsSync(path) && Buffer.byteLength(path) + SUFFIX_BYTES <= MAX_BYTES,
  )
  if (found === undefined) throw new Error('no directory with a path short enough for a Unix socket')
  return found
}

function removeSocket(directory: string): void {
  const path = findSocket(directory)
  const parent = dirname(path)
  // Never another directory than one of `prepareSocket`, also not when the record is wrong.
  if (parent !== resolve(directory) && /\/latchkey-[A-Za-z0-9]{6}$/.test(parent)) {
    rmSync(path, { force: true })
    rmSync(parent, { force: true, recursive: true })
  }
  rmSync(join(resolve(directory), NAME), { force: true })
  rmSync(join(directory, RECORD), { force: true })
}
