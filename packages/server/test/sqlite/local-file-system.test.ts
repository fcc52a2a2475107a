/** The refusal of network file systems for the embedded database (store/local-file-system.ts). */
import assert from 'node:assert/strict'
import type { statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { networkFileSystem, requireLocalFileSystem } from '../../src/store/local-file-system.ts'
import { StoreError } from '../../src/store/store-error.ts'

const FUSE = 0x65735546

for (const [name, type, mount, expected] of [
  ['NFS', 0x6969, undefined, 'NFS'],
  ['CIFS', 0xff534d42, undefined, 'CIFS'],
  ['SMB 2 and 3', 0xfe534d42, undefined, 'SMB 2'],
  ['9P, as the drives of Windows are in WSL', 0x01021997, undefined, '9P'],
  ['Ceph', 0x00c36400, undefined, 'Ceph'],
  ['Lustre', 0x0bd00bd0, undefined, 'Lustre'],
  ['sshfs', FUSE, 'fuse.sshfs', 'fuse.sshfs'],
  ['GlusterFS', FUSE, 'fuse.glusterfs', 'fuse.glusterfs'],
  ['virtiofs', FUSE, 'virtiofs', undefined],
  ['an encrypted directory', FUSE, 'fuse.gocryptfs', undefined],
  ['FUSE of an unknown type', FUSE, undefined, undefined],
  ['ext4', 0xef53, 'ext4', undefined],
  ['tmpfs', 0x01021994, undefined, undefined],
  ['an unknown type', 0x12345678, undefined, undefined],
] as const) {
  test(`${name} ${expected === undefined ? 'passes' : 'is refused'}`, () => {
    assert.equal(
      networkFileSystem(type, () => mount),
      expected,
    )
  })
}

test('the error names the file system and both remedies; a local directory passes', () => {
  requireLocalFileSystem(tmpdir())
  // 32-bit numbers with the highest bit set may arrive as negative ones.
  const cifs = { type: 0xff534d42 | 0 }
  assert.throws(
    () => requireLocalFileSystem(tmpdir(), (() => cifs) as unknown as typeof statfsSync),
    (error: unknown) =>
      error instanceof StoreError &&
      /network file system \(CIFS\).*local disk, or use a PostgreSQL database/.test(error.message),
  )
})
