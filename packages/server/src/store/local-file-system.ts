/**
 * Refuses network file systems for the embedded database (issue 11, A4): two machines, or two containers, on one share
 * may each get the locks of the same file, and then nothing stops them from issuing the same keys. Magic numbers:
 * linux/magic.h, statfs(2). A type that is not listed passes, because a local file system must never be refused.
 */
import { readFileSync, statfsSync, statSync } from 'node:fs'
import { StoreError } from './store-error.ts'

const NETWORK_TYPES: ReadonlyMap<number, string> = new Map([
  [0x6969, 'NFS'],
  [0x517b, 'SMB'],
  [0xff534d42, 'CIFS'],
  [0xfe534d42, 'SMB 2'],
  [0x01021997, '9P'],
  [0x00c36400, 'Ceph'],
  [0x5346414f, 'AFS'],
  [0x6b414653, 'AFS'],
  [0x0bd00bd0, 'Lustre'],
  [0x47504653, 'GPFS'],
  [0x73757245, 'Coda'],
  [0x564c, 'NCP'],
  [0x013111a8, 'IBRIX'],
  [0x19830326, 'BeeGFS'],
  [0xaad7aaea, 'PanFS'],
  [0x20030528, 'OrangeFS'],
])

/** The number of FUSE and virtiofs. Local ones (encryption, unions, the disk of a virtual machine) have it too. */
const FUSE = 0x65735546

/** The type that a mount names; `virtiofs` passes, because one machine's kernel serves all locks of the mount. */
const NETWORK_FUSE =
  /^fuse\.(sshfs|glusterfs|ceph|ceph-fuse|s3fs|s3ql|gcsfuse|goofys|geesefs|mountpoint-s3|rclone|juicefs|davfs|davfs2|curlftpfs|blobfuse2?|moosefs|mfs|lizardfs|seaweedfs|cvmfs2)$/

/** The name of a network file system, from its number and the type of its mount; undefined for any other. */
export function networkFileSystem(type: number, mountType: () => string | undefined): string | undefined {
  if (type !== FUSE) return NETWORK_TYPES.get(type)
  const named = mountType()
  return named !== undefined && NETWORK_FUSE.test(named) ? named : undefined
}

/** @throws {StoreError} when the directory is on a network file system. */
export function requireLocalFileSystem(directory: string, statfs: typeof statfsSync = statfsSync): void {
  // The kernel's number has 32 bits and may arrive as a negative one.
  const name = networkFileSystem(statfs(directory).type >>> 0, () => mountTypeOf(directory))
  if (name === undefined) return
  throw new StoreError(
    `${directory} is on a network file system (${name}), whose locks cannot keep two servers from issuing the same keys. ` +
      'Choose a --data directory on a local disk, or use a PostgreSQL database.',
  )
}

/** The type in /proc/self/mountinfo (proc(5)) of the mount that has this directory; undefined where there is none. */
function mountTypeOf(directory: string): string | undefined {
  const { dev } = statSync(directory)
  const device = `${majorOf(dev)}:${minorOf(dev)}`
  try {
    const mount = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .find((line) => line.split(' ')[2] === device)
    return mount?.split(' - ')[1]?.split(' ')[0]
  } catch {
    return undefined
  }
}

/** The parts of a device number, as glibc divides it. */
function majorOf(dev: number): number {
  return (dev >>> 8) & 0xfff
}

function minorOf(dev: number): number {
  return (dev & 0xff) | ((dev >>> 12) & 0xfff00)
}
