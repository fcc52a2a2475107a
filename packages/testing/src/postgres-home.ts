/**
 * The directory of a temporary cluster, owned by the unprivileged user that runs it. A separate watcher process ends
 * the cluster and removes the directory when the test's process removes it or dies for any reason.
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
  /** The cluster's data directory; not created yet. */
  readonly data: string
  /** Directory of the WAL, if not within `data`. */
  readonly wal: string | undefined
  /** Where the small disk is mounted, for `fillDisk` and `makeRoom`. */
  readonly disk: string | undefined
  /** User to spawn PostgreSQL's programs as, because they refuse to run as root. */
  readonly owner: Owner
  /** Writes a file relative to the home that only the owner can read. */
  write(name: string, text: string): string
  /** Ends a server that still runs over `data` and removes the directory. Idempotent. */
  remove(): Promise<void>
}

/** A separate file system that a test can fill: for everything, or for the data without its WAL. Needs root. */
export type SmallDisk = { readonly of: 'everything' | 'data'; readonly bytes: number }

/** ID of the user and group "nobody", used if the tests run as root. */
const UNPRIVILEGED_ID = 65_534

/** The end of standard input signals the end of the test. Removal repeats, because a backend may still write. */
const WATCHER = `
  trap '' INT TERM HUP
  cat >/dev/null
  [ -f "$2/postmaster.pid" ] && kill -QUIT "$(head -n 1 "$2/postmaster.pid")"
  for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -d "$1/disk" ] && umount "$1/disk"
    rm -rf "$1" && exit 0
    sleep 0.25
  done 2>/dev/null`

/** @throws {Error} when a small disk is requested and cannot be mounted. */
export function makePostgresHome(disk?: SmallDisk): PostgresHome {
  const path = mkdtempSync(join(tmpdir(), 'latchkey-postgres-'))
  const owner = process.getuid?.() === 0 ? { uid: UNPRIVILEGED_ID, gid: UNPRIVILEGED_ID } : {}
  const own = (owned: string): void => {
    if (owner.uid !== undefined) chownSync(owned, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
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
