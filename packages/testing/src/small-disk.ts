/** A file system of a few megabytes in memory that a test can fill to the last byte and empty again. */
import { execFileSync } from 'node:child_process'
import { closeSync, fsyncSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const BALLAST = 'ballast'

/** Mounts the file system; the caller unmounts it. @throws {Error} when this user may not mount. */
export function mountSmallDisk(path: string, bytes: number): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path], { stdio: 'pipe' })
}

/** Value for a test's `skip`: the reason why no small disk can be mounted, or false. */
export function noSmallDisk(): string | false {
  if (process.getuid?.() !== 0) return 'mounting a file system needs root'
  const path = mkdtempSync(join(tmpdir(), 'latchkey-disk-'))
  try {
    mountSmallDisk(path, 4096)
    execFileSync('umount', [path])
    return false
  } catch (error) {
    return `cannot mount a file system: ${String(error)}`
  } finally {
    rmdirSync(path)
  }
}

/** Fills the file system to the last byte. */
export function fillDisk(path: string): void {
  const file = openSync(join(path, BALLAST), 'a')
  try {
    for (const size of [1 << 20, 1 << 12]) while (writes(file, size)) fsyncSync(file)
  } finally {
    closeSync(file)
  }
}

export function makeRoom(path: string): void {
  rmSync(join(path, BALLAST), { force: true })
}

function writes(file: number, size: number): boolean {
  try {
    return writeSync(file, Buffer.alloc(size)) === size
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') return false
    throw error
  }
}
