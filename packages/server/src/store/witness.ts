/**
 * The last write that a process acknowledged, kept outside the database (fence/judge.ts): a small file, synced after
 * each commit and before its answers leave. Commits that end while a sync runs share the next one.
 *
 * The file has two places, written in turn and each with its own checksum, so that a torn write leaves the previous
 * one. Its name contains the database's ID, so that a witness is never compared with another database. Processes that
 * share a directory have a file each: the first that no other process has locked.
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
import { shuttingDown, unavailable } from '../matrix-error.ts'
import { prepareDirectory, preparePrivateFile, sync } from './data-directory.ts'
import { type Lock, tryLock } from './lock-file.ts'
import { StoreError } from './store-error.ts'
import { type Identity, identityOf, isCopy } from './witness-identity.ts'

/** Room for about 2 000 lanes. */
const PLACE_BYTES = 64 * 1024
const MAX_PROCESSES = 256
/** Commits that may wait for the witness; further ones are refused with 503. */
const MAX_WAITING = 20_000

type Content = {
  readonly writer: string
  /** Absent in the files of earlier versions. */
  readonly identity?: Identity
  /** Grows with each write: the place with the higher turn is the newer one. */
  readonly turn: number
  readonly marks: readonly (readonly [lane: number, n: number, epoch: string])[]
  /** The last start of the database server that the process verified (PostgreSQL). */
  readonly start?: string
}

export type WitnessOptions = {
  readonly directory: string
  /** The ID of the database. */
  readonly database: string
}

export class Witness {
  readonly file: string
  /** Names this process's counters in the database. */
  readonly writerId: string
  /** Whether the file did not exist: then earlier writes have no witness. */
  readonly isNew: boolean
  readonly #fd: number
  readonly #lock: Lock
  /** Without a birth time: looked up again at each write (witness-identity.ts). */
  #identity: Identity | undefined
  #marks: Map<number, Mark>
  #start: string | undefined
  #turn: number
  #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = []
  #running = false
  #closed = false
  #failed = false

  /**
   * Takes the first file of a database that no other process has locked.
   *
   * @throws {StoreError} when the directory cannot be used, or one of the files was copied or restored.
   */
  static open({ directory, database }: WitnessOptions): Witness {
    prepareDirectory(directory)
    requireOriginals(listWitnesses({ directory, database }))
    for (let slot = 1; slot <= MAX_PROCESSES; slot++) {
      const witness = Witness.take(join(directory, `fence-${database}-${slot}`))
      if (witness !== undefined) return witness
    }
    throw new StoreError(
      `${directory} is used by ${MAX_PROCESSES} processes: give this one another --fence-dir.`,
    )
  }

  /** Takes this file, and creates it if it does not exist; undefined when another process has it. */
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
    this.#start = content?.start
    this.#turn = content?.turn ?? 0
    preparePrivateFile(file)
    // O_DSYNC writes and syncs in one call: the answers of a commit wait for a single turn of the thread pool.
    this.#fd = openSync(file, constants.O_RDWR | constants.O_DSYNC)
    if (this.isNew) this.#makeRoom()
  }

  /** Reserves the disk space of both places, so that a full disk does not cut a witness short later. */
  #makeRoom(): void {
    try {
      const room = Buffer.alloc(2 * PLACE_BYTES)
      if (writeSync(this.#fd, room, 0, room.length, 0) < room.length) throw new Error('the disk is full')
      fsyncSync(this.#fd)
      sync(dirname(this.file))
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  get marks(): Marks {
    return this.#marks
  }

  /** The last verified start of the database server; undefined before the first one. */
  get start(): string | undefined {
    return this.#start
  }

  get identity(): Identity {
    return identityOf(this.#fd)
  }

  /** The other witnesses of this database in the same directory, whether or not a process has them open. */
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

  /** Resolves when the start is on stable storage. @throws {MatrixError} 503 when the file cannot be written. */
  async noteStart(start: string): Promise<void> {
    if (start === this.#start) return this.ready()
    this.#start = start
    await this.#sync()
  }

  /** Makes a copied file the witness of this database: writes its own identity. */
  recognise(): Promise<void> {
    return this.#sync()
  }

  /** Replaces all marks by those of the database: after a raise, and after `latchkey fence adopt`. */
  replace(marks: Marks): Promise<void> {
    this.#marks = new Map(marks)
    return this.#sync()
  }

  /**
   * Before a transaction: checks that its write can be recorded. Writes the file only after a failure.
   *
   * @throws {MatrixError} 503 when the file cannot be written.
   */
  async ready(): Promise<void> {
    if (this.#failed) await this.#sync()
  }

  /** Finishes the write that runs, then releases the file. */
  close(): void {
    this.#closed = true
    if (!this.#running) this.#release()
  }

  #release(): void {
    closeSync(this.#fd)
    this.#lock.close()
  }

  #sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(shuttingDown())
      if (this.#waiting.length >= MAX_WAITING) return reject(unavailable('Witness queue of the fence full.'))
      this.#waiting.push({ resolve, reject })
      if (!this.#running) void this.#run()
    })
  }

  /** One write at a time: two at once could damage both places. */
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
    if (this.#closed) this.#release()
  }

  async #write(): Promise<void> {
    // After a failure the same place again, because the other one is whole.
    const turn = this.#turn + 1
    const marks = [...this.#marks].map(([lane, { n, epoch }]) => [lane, n, epoch] as const)
    try {
      if (this.#identity?.born === undefined) this.#identity = identityOf(this.#fd)
      const bytes = encode({
        writer: this.writerId,
        identity: this.#identity,
        turn,
        marks,
        ...(this.#start !== undefined && { start: this.#start }),
      })
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

export type Listed = {
  readonly file: string
  readonly writerId: string
  readonly marks: Marks
  /** Whether it is not the file that its process wrote, but a copy (witness-identity.ts). */
  readonly isCopy: boolean
  readonly writtenOn: string | undefined
}

/** The witnesses of a database in a directory, whether or not a process has them open. */
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
      const file = join(directory, name)
      const { writer: writerId, identity } = content
      return [{ file, writerId, marks, isCopy: isCopy(file, identity), writtenOn: identity?.host }]
    })
}

/** @throws {StoreError} when one of them was copied or restored. */
export function requireOriginals(witnesses: readonly Listed[]): void {
  const copy = witnesses.find((witness) => witness.isCopy)
  if (copy === undefined) return
  throw new StoreError(
    `${copy.file} was copied or restored since it was written on ${copy.writtenOn}, so it cannot show whether the database ` +
      'has lost writes. After a restore of a backup or a snapshot, run "latchkey fence raise". After a move of the stopped ' +
      'installation that was not served since, run "latchkey fence adopt". Nothing was changed.',
  )
}

/** After the fence was raised: copies become witnesses of this database. Running processes have the originals. */
export async function recogniseCopies(witnesses: readonly Listed[]): Promise<void> {
  for (const { file } of witnesses.filter((witness) => witness.isCopy)) {
    const witness = Witness.take(file)
    await witness?.recognise().finally(() => witness.close())
  }
}

/** The content of the newest intact place; undefined when there is no file, or no intact place. */
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

/** One line with the hash of the text, one line with the text. */
function encode(content: Content): Buffer {
  const text = JSON.stringify(content)
  const bytes = Buffer.from(`${hash('sha256', text)}\n${text}\n`)
  if (bytes.length > PLACE_BYTES)
    throw new Error(`a witness of ${bytes.length} bytes is larger than its place`)
  return bytes
}

function decode(bytes: Buffer): Content | undefined {
  const [digest, text] = bytes.toString('utf8').split('\n', 2)
  if (text === undefined || hash('sha256', text) !== digest) return undefined
  return JSON.parse(text) as Content
}
