/**
 * The directory that a throw-away cluster lives in, owned by the ordinary user it runs as. A watcher outside the test's
 * process ends the cluster and removes the directory as soon as that process lets go or dies, whatever it dies of.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { mountSmallDisk } from './small-disk.ts'

export type Owner = { readonly uid?: number; readonly gid?: number }

export type PostgresHome = {
  readonly path: string
  /** The cluster's data directory; not made yet. */
  readonly data: string
  /** Where the WAL is to lie, if not with the data. */
  readonly wal: string | undefined
  /** Where the small disk is mounted, for `fillDisk` and `makeRoom`. */
  readonly disk: string | undefined
  /** What to spawn PostgreSQL's programs with: they refuse to run as root. */
  readonly owner: Owner
  /** Writes a file, its name relative to the home, that the owner alone can read. */
  write(name: string, text: string): string
  /** Ends what still runs over `data`, and removes everything. Idempotent. */
  remove(): Promise<void>
}

/** A file system of its own, so that it can be full: for everything, or for the data without its WAL. Needs root. */
export type SmallDisk = { readonly of: 'everything' | 'data'; readonly bytes: number }

/** The user "nobody" and his group, where the tests run as root. */
const NOBODY = 65_534

/** The end of standard input is the end of the test. A backend may still write while its files are removed: again. */
const WATCHER = `
  trap '' INT TERM HUP
  cat >/dev/null
  [ -f "$2/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$2/postmaster.pid")"
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -d "$1/disk" ] && umount "$1/disk"
    rm -rf "$1" && exit 0
    sleep 0.25
  done 2>/dev/null`

/** @throws {Error} when a small disk is asked for and cannot be mounted. */
export function makePostgresHome(disk?: SmallDisk): PostgresHome {
  const path = mkdtempSync(join(tmpdir(), 'latchkey-postgres-'))
  const owner = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
  const own = (owned: string): void => {
    if (owner.uid !== undefined) chownSync(owned, NOBODY, NOBODY)
  }
  own(path)
  const onDisk = join(path, 'disk')
  const data = join(disk === undefined ? path : onDisk, 'data')
  const watcher = spawn('/bin/sh', ['-c', WATCHER, 'sh', path, data], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  const ended = once(watcher, 'exit')
  watcher.unref()
  if (disk !== undefined) {
    try {
      mkdirSync(onDisk)
      mountSmallDisk(onDisk, disk.bytes)
      own(onDisk)
    } catch (error) {
      watcher.stdin?.end()
      throw error
    }
  }
  return {
    path,
    data,
    wal: disk?.of === 'data' ? join(path, 'wal') : undefined,
    disk: disk && onDisk,
    owner,
    write(name, text) {
      const file = resolve(path, name)
      writeFileSync(file, text, { mode: 0o600 })
      own(file)
      return file
    },
    async remove() {
      watcher.ref()
      watcher.stdin?.end()
      await ended
    },
  }
}
