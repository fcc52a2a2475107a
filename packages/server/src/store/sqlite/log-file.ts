/**
 * The headers of the embedded database, read from its files without SQLite, because opening them would change them:
 * that of the main file, and those that the write-ahead log has for it (sqlite.org/fileformat2.html, "The Write-Ahead
 * Log"). The log ends where its chain of checksums does, as SQLite reads it.
 */
import { closeSync, openSync, readSync } from 'node:fs'

/** The fields of a header that show which file a log belongs to. */
export type Header = {
  /** Changes with each checkpoint (checkpoints.ts); 0: never written. */
  readonly stamp: number
  /** Differs between a database and its copies by VACUUM or by SQLite's backup, whose pages have other places. */
  readonly schemaCookie: number
}

const DATABASE_MAGIC = 'SQLite format 3\0'
const DATABASE_HEADER_BYTES = 100
export const LOG_HEADER_BYTES = 32
const FRAME_HEADER_BYTES = 24
const MAGIC = 0x377f0682
const PAGE_SIZES = { least: 512, most: 65_536 }

/** The header of the main file; undefined when it does not exist, or is not a database. */
export function readHeader(file: string): Header | undefined {
  return withFile(file, (fd) => {
    const bytes = Buffer.alloc(DATABASE_HEADER_BYTES)
    if (readSync(fd, bytes, 0, bytes.length, 0) < bytes.length) return undefined
    return bytes.toString('latin1', 0, DATABASE_MAGIC.length) === DATABASE_MAGIC ? headerIn(bytes) : undefined
  })
}

/**
 * The headers of the main file that the log's committed transactions wrote, oldest first; undefined when it has no
 * transaction.
 */
export function readLoggedHeaders(logFile: string): readonly Header[] | undefined {
  return withFile(logFile, (fd) => {
    const start = Buffer.alloc(LOG_HEADER_BYTES)
    if (readSync(fd, start, 0, start.length, 0) < start.length) return undefined
    const magic = start.readUInt32BE(0)
    const pageSize = start.readUInt32BE(8)
    if (magic >>> 1 !== MAGIC >>> 1 || pageSize < PAGE_SIZES.least || pageSize > PAGE_SIZES.most)
      return undefined
    const sums = new Checksum(magic === MAGIC)
    sums.add(start, 0, LOG_HEADER_BYTES - 8)
    if (!sums.equals(start, LOG_HEADER_BYTES - 8)) return undefined
    const committed: Header[] = []
    let uncommitted: Header[] = []
    let hasCommit = false
    const frame = Buffer.alloc(FRAME_HEADER_BYTES + pageSize)
    for (let at = LOG_HEADER_BYTES; ; at += frame.length) {
      if (readSync(fd, frame, 0, frame.length, at) < frame.length) break
      // The salts of an earlier log: a longer one was in this file before.
      if (start.compare(frame, 8, 16, 16, 24) !== 0) break
      sums.add(frame, 0, 8)
      sums.add(frame, FRAME_HEADER_BYTES, frame.length)
      if (!sums.equals(frame, 16)) break
      if (frame.readUInt32BE(0) === 1) uncommitted.push(headerIn(frame.subarray(FRAME_HEADER_BYTES)))
      if (frame.readUInt32BE(4) === 0) continue
      hasCommit = true
      committed.push(...uncommitted)
      uncommitted = []
    }
    return hasCommit ? committed : undefined
  })
}

function headerIn(page: Buffer): Header {
  return { schemaCookie: page.readUInt32BE(40), stamp: page.readUInt32BE(68) }
}

/** The running checksum of a log. */
class Checksum {
  readonly #littleEndian: boolean
  #first = 0
  #second = 0

  constructor(littleEndian: boolean) {
    this.#littleEndian = littleEndian
  }

  add(bytes: Buffer, from: number, to: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    const littleEndian = this.#littleEndian
    let first = this.#first
    let second = this.#second
    for (let at = from; at < to; at += 8) {
      first = (first + view.getUint32(at, littleEndian) + second) >>> 0
      second = (second + view.getUint32(at + 4, littleEndian) + first) >>> 0
    }
    this.#first = first
    this.#second = second
  }

  equals(bytes: Buffer, at: number): boolean {
    return bytes.readUInt32BE(at) === this.#first && bytes.readUInt32BE(at + 4) === this.#second
  }
}

/** Undefined when the file does not exist. */
function withFile<T>(file: string, read: (fd: number) => T): T | undefined {
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  try {
    return read(fd)
  } finally {
    closeSync(fd)
  }
}
