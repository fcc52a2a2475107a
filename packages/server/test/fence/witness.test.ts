/** The witness file: a partial write does not count, and every acknowledged mark can be read back. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fillDisk, makeRoom, mountSmallDisk, noSmallDisk } from '@latchkey/testing/small-disk.ts'
import { MatrixError } from '../../src/matrix-error.ts'
import { Witness } from '../../src/store/witness.ts'

const EPOCH = 'Xm0p3vPq0mW3oJ2x'
const PAGE_BYTES = 4096

const isUnavailable = (error: unknown): boolean => error instanceof MatrixError && error.status === 503

async function inDirectory(run: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-witness-'))
  try {
    await run(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function open(directory: string): Witness {
  return Witness.open({ directory, database: 'x' })
}

test('lanes without space are refused, and the earlier ones stay witnessed', () =>
  inDirectory(async (directory) => {
    const witness = open(directory)
    const recorded = Array.from(
      { length: 5_000 },
      (_, lane) => () => witness.record(lane, { n: 9, epoch: EPOCH }),
    )
    await Promise.all(recorded.slice(0, 1_000).map((record) => record()))
    const rest = await Promise.allSettled(recorded.slice(1_000).map((record) => record()))
    // The first one is written alone, and fits.
    assert.equal(rest.shift()?.status, 'fulfilled')
    assert.ok(rest.every((outcome) => outcome.status === 'rejected' && isUnavailable(outcome.reason)))
    await assert.rejects(witness.ready(), isUnavailable)
    witness.close()
    const again = open(directory)
    assert.equal(again.marks.size, 1_001)
    again.close()
  }))

test('a partial write does not count', { skip: noSmallDisk() }, () =>
  inDirectory(async (directory) => {
    mountSmallDisk(directory, 64 * PAGE_BYTES)
    try {
      const witness = open(directory)
      for (let lane = 0; lane < 200; lane++) await witness.record(lane, { n: 1, epoch: EPOCH })
      // Frees its space and leaves one page, like a copy-on-write file system on a full disk.
      const { size } = statSync(witness.file)
      execFileSync('fallocate', ['--punch-hole', '-o', '0', '-l', `${size}`, witness.file])
      fillDisk(directory)
      const ballast = openSync(join(directory, 'ballast'), 'r+')
      ftruncateSync(ballast, fstatSync(ballast).size - PAGE_BYTES)
      closeSync(ballast)
      await assert.rejects(witness.record(0, { n: 2, epoch: EPOCH }), isUnavailable)
      await assert.rejects(witness.ready(), isUnavailable)
      makeRoom(directory)
      await witness.ready()
      witness.close()
      const again = open(directory)
      assert.deepEqual(again.marks.get(0), { n: 2, epoch: EPOCH })
      assert.equal(again.marks.size, 200)
      again.close()
    } finally {
      execFileSync('umount', ['-l', directory])
    }
  }),
)

test('a disk that is filled after the start does not damage the witness', { skip: noSmallDisk() }, () =>
  inDirectory(async (directory) => {
    mountSmallDisk(directory, 64 * PAGE_BYTES)
    try {
      const witness = open(directory)
      fillDisk(directory)
      for (let lane = 0; lane < 200; lane++) await witness.record(lane, { n: 1, epoch: EPOCH })
      witness.close()
      const again = open(directory)
      assert.equal(again.marks.size, 200)
      again.close()
    } finally {
      execFileSync('umount', ['-l', directory])
    }
  }),
)

test('a close during a write finishes that write, in its own file, and refuses further ones', () =>
  inDirectory(async (directory) => {
    const witness = open(directory)
    await witness.record(0, { n: 1, epoch: EPOCH })
    const underWay = witness.record(0, { n: 2, epoch: EPOCH })
    witness.close()
    // Gets the descriptor of the closed file, if it is closed.
    const other = openSync(join(directory, 'another'), 'w+')
    await underWay
    assert.equal(fstatSync(other).size, 0)
    closeSync(other)
    await assert.rejects(witness.record(0, { n: 3, epoch: EPOCH }), isUnavailable)
    const again = open(directory)
    assert.deepEqual(again.marks.get(0), { n: 2, epoch: EPOCH })
    again.close()
  }))

test('lists the other witnesses of its database in the directory, open or not, and no others', () =>
  inDirectory(async (directory) => {
    const [one, two] = [open(directory), open(directory)]
    const stranger = Witness.open({ directory, database: 'y' })
    for (const [n, witness] of [one, two, stranger].entries())
      await witness.record(0, { n: n + 1, epoch: EPOCH })
    const seen = (): unknown[] => one.others().map(({ writerId, marks }) => [writerId, marks.get(0)?.n])
    assert.deepEqual(seen(), [[two.writerId, 2]])
    two.close()
    assert.deepEqual(seen(), [[two.writerId, 2]])
    for (const witness of [one, stranger]) witness.close()
  }))
