/**
 * What a process acknowledged last, kept outside of the database (fence/judge.ts): a small file, synced after each commit
 * and before the answers leave. Commits that end while a sync runs share the next one.
 *
 * The file has two places, written in turn and each with its own checksum, so that a torn write leaves the one before.
 * Its name has the database's identifier in it, so that a witness never speaks of another database. Processes that share a
 * directory have a file each: the first that no other process has locked.
 */
import { hash, randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readdirSync,
  write,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import type { Mark, Marks } from '../fence/judge.ts'
import { unavailable } from '../matrix-error.ts'
import { prepareDirectory, preparePrivateFile } from './data-directory.ts'
import { type Lock, tryLock } from './lock-file.ts'
import { StoreError } from './store-error.ts'

/** Room for some two thousand lanes. */
const PLACE_BYTES = 64 * 1024
const MAX_PROCESSES = 256
/** Commits that wait for their place in the witness: beyond it callers are told to come back. */
const MAX_WAITING = 20_000

type Content = {
  readonly writer: string
  /** Grows with each write: which of the two places is the newer. */
  readonly turn: number
  readonly marks: readonly (readonly [lane: number, n: number, epoch: string])[]
}

export type WitnessOptions = {
  readonly directory: string
  /** The identifier of the database. */
  readonly database: string
}

export class Witness {
  readonly file: string
  /** Of this process's counters in the database. */
  readonly writerId: string
  /** There was no file: nothing can be said about the time before. */
  readonly isNew: boolean
  readonly #fd: number
  readonly #lock: Lock
  #marks: Map<number, Mark>
  #turn: number
  #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = []
  #running = false
  #closed = false
  #failed = false

  /**
   * Takes the first file of a database that no other process has.
   *
   * @throws {StoreError} when the directory cannot be used.
   */
  static open({ directory, database }: WitnessOptions): Witness {
    prepareDirectory(directory)
    for (let slot = 1; slot <= MAX_PROCESSES; slot++) {
      const witness = Witness.take(join(directory, `fence-${database}-${slot}`))
      if (witness !== undefined) return witness
    }
    throw new StoreError(
      `${directory} is used by ${MAX_PROCESSES} processes: give this one another --fence-dir.`,
    )
  }

  /** This file, made if need be; undefined when another process has it. */
  static take(file: string): Witness | undefined {
    const lock = tryLock(`${file}.lock`)
    if (lock === undefined) return undefined
    try {
      return new Witness(file, lock)
    } catch (error) {
      lock.close()
      throw error
    }
  }

  private constructor(file: string, lock: Lock) {
    const content = readWitness(file)
    this.file = file
    this.#lock = lock
    this.isNew = content === undefined
    this.writerId = content?.writer ?? randomBytes(9).toString('base64url')
    this.#marks = new Map(content?.marks.map(([lane, n, epoch]) => [lane, { n, epoch }]))
    this.#turn = content?.turn ?? 0
    preparePrivateFile(file)
    // Written and synced in one: the answers of a commit wait for a single turn of the thread pool.
    this.#fd = openSync(file, constants.O_RDWR | constants.O_DSYNC)
    if (this.isNew) this.#makeRoom()
  }

  /** Both places have their room on the disk from here on: a disk that is full later does not cut a witness short. */
  #makeRoom(): void {
    try {
      const room = Buffer.alloc(2 * PLACE_BYTES)
      if (writeSync(this.#fd, room, 0, room.length, 0) < room.length) throw new Error('the disk is full')
      fsyncSync(this.#fd)
      syncDirectory(dirname(this.file))
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  get marks(): Marks {
    return this.#marks
  }

  /** The other witnesses of this database in the same directory, whether a process has them open or not. */
  others(): readonly Listed[] {
    const prefix = basename(this.file).replace(/\d+$/, '')
    return listFiles(dirname(this.file), prefix).filter(({ writerId }) => writerId !== this.writerId)
  }

  /**
   * Resolves when the mark is on stable storage. Marks of a lane only grow within an epoch.
   *
   * @throws {MatrixError} 503 when the file cannot be written.
   */
  record(lane: number, mark: Mark): Promise<void> {
    const known = this.#marks.get(lane)
    if (known === undefined || known.epoch !== mark.epoch || known.n < mark.n) this.#marks.set(lane, mark)
    return this.#sync()
  }

  /** Starts anew from what the database has: after a raise, and after `latchkey fence adopt`. */
  replace(marks: Marks): Promise<void> {
    this.#marks = new Map(marks)
    return this.#sync()
  }

  /**
   * Before a write: whether the one after it could be witnessed. Tried again only after a failure.
   *
   * @throws {MatrixError} 503 when the file cannot be written.
   */
  async ready(): Promise<void> {
    if (this.#failed) await this.#sync()
  }

  /** What is under way is written to its end. */
  close(): void {
    this.#closed = true
    if (!this.#running) this.#letGo()
  }

  #letGo(): void {
    closeSync(this.#fd)
    this.#lock.close()
  }

  #sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(unavailable('The server is shutting down.'))
      if (this.#waiting.length >= MAX_WAITING)
        return reject(unavailable('The witness of the fence is too slow.'))
      this.#waiting.push({ resolve, reject })
      if (!this.#running) void this.#run()
    })
  }

  /** One write at a time: two at once could spoil both places. */
  async #run(): Promise<void> {
    this.#running = true
    while (this.#waiting.length > 0) {
      const served = this.#waiting
      this.#waiting = []
      try {
        await this.#write()
        for (const { resolve } of served) resolve()
      } catch (error) {
        for (const { reject } of served) reject(error)
      }
    }
    this.#running = false
    if (this.#closed) this.#letGo()
  }

  async #write(): Promise<void> {
    // After a failure the same place again: the other one is whole, and has been written lately.
    const turn = this.#turn + 1
    const marks = [...this.#marks].map(([lane, { n, epoch }]) => [lane, n, epoch] as const)
    try {
      const bytes = encode({ writer: this.writerId, turn, marks })
      const written = await writeAt(this.#fd, bytes, (turn % 2) * PLACE_BYTES)
      if (written < bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes were written`)
      this.#turn = turn
      this.#failed = false
    } catch (error) {
      this.#failed = true
      const failure = unavailable(
        `The witness of the fence could not be written to ${this.file}; nothing of this request was acknowledged.`,
      )
      failure.cause = error
      throw failure
    }
  }
}

type Listed = { readonly file: string; readonly writerId: string; readonly marks: Marks }

/** The witnesses of a database in a directory, whether or not a process has them open: file names and what they hold. */
export function listWitnesses({ directory, database }: WitnessOptions): readonly Listed[] {
  return existsSync(directory) ? listFiles(directory, `fence-${database}-`) : []
}

function listFiles(directory: string, prefix: string): readonly Listed[] {
  return readdirSync(directory)
    .filter((name) => name.startsWith(prefix) && /^\d+$/.test(name.slice(prefix.length)))
    .sort()
    .flatMap((name) => {
      const content = readWitness(join(directory, name))
      if (content === undefined) return []
      const marks = new Map(content.marks.map(([lane, n, epoch]) => [lane, { n, epoch }]))
      return [{ file: join(directory, name), writerId: content.writer, marks }]
    })
}

/** The newer place that is whole; undefined when there is no file, or nothing in it yet. */
function readWitness(file: string): Content | undefined {
  if (!existsSync(file)) return undefined
  const bytes = readFileSync(file)
  const places = [decode(bytes.subarray(0, PLACE_BYTES)), decode(bytes.subarray(PLACE_BYTES))]
  return places
    .filter((place) => place !== undefined)
    .sort((a, b) => a.turn - b.turn)
    .at(-1)
}

function writeAt(fd: number, bytes: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, position, (error, written) =>
      error === null ? resolve(written) : reject(error),
    )
  })
}

/** A line with the text's hash, a line with the text. */
function encode(content: Content): Buffer {
  const text = JSON.stringify(content)
  const bytes = Buffer.from(`${hash('sha256', text)}\n${text}\n`)
  if (bytes.length > PLACE_BYTES)
    throw new Error(`a witness of ${bytes.length} bytes has no room in its place`)
  return bytes
}

function decode(bytes: Buffer): Content | undefined {
  const [digest, text] = bytes.toString('utf8').split('\n', 2)
  if (text === undefined || hash('sha256', text) !== digest) return undefined
  return JSON.parse(text) as Content
}

/** Makes a new file last: its name is on stable storage from here on. */
function syncDirectory(directory: string): void {
  const fd = openSync(directory, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
