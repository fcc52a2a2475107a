/**
 * The identity of a witness: its file knows the inode and the birth time under which it was written (issue 11, A3). A
 * witness that was restored together with its database would say that nothing was lost; but it is another file.
 *
 * On Linux the birth time alone decides, where the file system has one: no tool can set it, and some file systems
 * number their inodes again at each mount. Elsewhere a clone of a file can have the birth time of the original, so the
 * inode counts too. A snapshot of the block device, or of a whole file system, keeps both: it cannot be recognised.
 */
import { type BigIntStats, fstatSync, readFileSync, statfsSync, statSync } from 'node:fs'
import { hostname } from 'node:os'

export type Identity = {
  readonly inode: string
  /** Nanoseconds since 1970; absent where the file system does not have it. */
  readonly born?: string
  /** For messages only, because containers, reboots and moves change them. */
  readonly device: string
  readonly host: string
  readonly boot: string
}

/** Types of file systems that number their files at each mount: FUSE, 9p. */
const RENUMBERED: ReadonlySet<number> = new Set([0x65735546, 0x01021997])

const BOOT_ID = bootId()

/** The identity of an open file. */
export function identityOf(fd: number): Identity {
  const stats = fstatSync(fd, { bigint: true })
  return {
    inode: String(stats.ino),
    ...(hasBirthTime(stats) && { born: String(stats.birthtimeNs) }),
    device: String(stats.dev),
    host: hostname(),
    boot: BOOT_ID,
  }
}

/** Whether a file has another identity than the one it was written with. */
export function isCopy(file: string, written: Identity | undefined): boolean {
  if (written === undefined) return false
  const stats = statSync(file, { bigint: true })
  const isSameInode = written.inode === String(stats.ino)
  if (written.born !== undefined && stats.birthtimeNs > 0n) {
    const isSameBirth = written.born === String(stats.birthtimeNs)
    return !isSameBirth || (process.platform !== 'linux' && !isSameInode)
  }
  return !isSameInode && !RENUMBERED.has(statfsSync(file).type)
}

/** Without a birth time, Node reports 0 or the time of the last change. A later write shows which it is. */
function hasBirthTime({ birthtimeNs, ctimeNs }: BigIntStats): boolean {
  return birthtimeNs > 0n && birthtimeNs !== ctimeNs
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}
