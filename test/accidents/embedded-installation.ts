/** One installation with the embedded database, for the accidents program: its directories, servers and operator. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { NOW } from '../../packages/server/test/support/store-calls.ts'
import { checkDatabase } from '../../packages/server/src/store/sqlite/check-database.ts'
import {
  adoptFence,
  backUpDatabase,
  fenceStatus,
  raiseFence,
  restoreDatabase,
} from '../../packages/server/src/store/sqlite/index.ts'
import { StoreError } from '../../packages/server/src/store/store-error.ts'
import { History } from './history.ts'
import { forkServer, openServer, type Server } from './server.ts'
import type { Circumstances } from './table.ts'

const DATABASE = 'latchkey.db'

export class EmbeddedInstallation {
  readonly history = new History()
  /** Raises at a start, and by commands. */
  raises = 0
  readonly #root = mkdtempSync(join(tmpdir(), 'latchkey-accident-'))
  readonly #servers = new Map<Server, { raises: number }>()
  readonly #isWithData: boolean
  readonly #clockOffsetMs: number
  #made = 0
  #machine = this.newDirectory()

  constructor({ layout, clockOffsetMs }: Pick<Circumstances, 'layout' | 'clockOffsetMs'>) {
    this.#isWithData = layout === 'witness with the data'
    this.#clockOffsetMs = clockOffsetMs
    mkdirSync(this.data)
    if (!this.#isWithData) mkdirSync(this.fence)
  }

  newDirectory(): string {
    const path = join(this.#root, `${++this.#made}`)
    mkdirSync(path)
    return path
  }

  get data(): string {
    return join(this.#machine, 'data')
  }

  get fence(): string {
    return this.#isWithData ? this.data : join(this.#machine, 'fence')
  }

  /** Starts a server with the right clock: in this process, or in one of its own that is killed. */
  async start(how: 'in this process' | 'as a process', begins = false): Promise<Server> {
    const options = { data: this.data, fence: this.fence, begins }
    return this.#keep(await (how === 'as a process' ? forkServer(options) : openServer(options)))
  }

  /**
   * Starts a server with the clock of the case.
   *
   * @throws {StoreError} when the start is refused.
   */
  async startAfter(): Promise<Server> {
    const options = { data: this.data, fence: this.fence, clockOffsetMs: this.#clockOffsetMs }
    return this.#keep(await openServer(options))
  }

  #keep(server: Server): Server {
    this.#servers.set(server, { raises: 0 })
    return server
  }

  async claim(server: Server, count: number): Promise<void> {
    const { keys, refusals, raises } = await server.claim(count)
    for (const key of keys) this.history.issued(key)
    this.history.refusals += refusals
    const known = this.#servers.get(server)
    if (known === undefined) return
    this.raises += raises - known.raises
    known.raises = raises
  }

  /** `latchkey backup`. */
  async backUp(): Promise<string> {
    const target = join(this.newDirectory(), 'copy.db')
    await backUpDatabase({ directory: this.data, target, overwrite: false, onProgress: () => {} })
    return target
  }

  /** A copy by another tool than ours. */
  vacuumInto(): string {
    const target = join(this.newDirectory(), 'copy.db')
    const db = new DatabaseSync(join(this.data, DATABASE), { readOnly: true })
    db.prepare(`vacuum into ?`).run(target)
    db.close()
    return target
  }

  /** `cp` of the database and its log. */
  copyDatabase(): string {
    const copy = this.newDirectory()
    for (const name of this.#databaseFiles()) run('cp', join(this.data, name), join(copy, name))
    return copy
  }

  putBackDatabase(copy: string): void {
    this.#delete(() => true)
    for (const name of readdirSync(copy)) run('cp', join(copy, name), join(this.data, name))
  }

  copyOver(file: string, log: 'log stays' | 'log deleted'): void {
    run('cp', file, join(this.data, DATABASE))
    if (log === 'log deleted') this.deleteLog()
  }

  deleteLog(): void {
    this.#delete((name) => name !== DATABASE)
  }

  deleteSharedMemory(): void {
    this.#delete((name) => name.endsWith('-shm'))
  }

  #delete(chosen: (name: string) => boolean): void {
    for (const name of this.#databaseFiles().filter(chosen)) rmSync(join(this.data, name))
  }

  #databaseFiles(): string[] {
    const names = [DATABASE, `${DATABASE}-wal`, `${DATABASE}-shm`]
    return names.filter((name) => existsSync(join(this.data, name)))
  }

  /** An archive of all directories, with the witness. */
  archive(): string {
    const file = join(this.newDirectory(), 'machine.tar')
    run('tar', '-C', this.#machine, '-cf', file, ...readdirSync(this.#machine))
    return file
  }

  unpack(archive: string, where: 'over the files' | 'in an empty place' | 'on another machine'): void {
    if (where === 'in an empty place')
      for (const name of readdirSync(this.#machine)) rmSync(join(this.#machine, name), { recursive: true })
    if (where === 'on another machine') this.#machine = this.newDirectory()
    run('tar', '-C', this.#machine, '-xf', archive)
  }

  /** `cp -a` of all directories. The operator goes on with the copy after `moveTo`. */
  copyAll(): string {
    const copy = this.newDirectory()
    run('cp', '-a', `${this.#machine}/.`, copy)
    return copy
  }

  moveTo(machine: string): void {
    this.#machine = machine
  }

  /** `mv` of the data directory within a file system. */
  rename(): void {
    const machine = this.newDirectory()
    for (const name of readdirSync(this.#machine)) renameSync(join(this.#machine, name), join(machine, name))
    this.#machine = machine
  }

  copyWitnesses(): string {
    const copy = this.newDirectory()
    for (const name of this.#witnesses()) run('cp', '-a', join(this.fence, name), join(copy, name))
    return copy
  }

  /** As rsync does: a new file takes the name. */
  putBackWitnesses(copy: string): void {
    for (const name of readdirSync(copy)) {
      run('cp', '-a', join(copy, name), join(this.fence, `.${name}`))
      renameSync(join(this.fence, `.${name}`), join(this.fence, name))
    }
  }

  duplicateWitness(): void {
    const [name = ''] = this.#witnesses()
    run('cp', '-a', join(this.fence, name), join(this.fence, name.replace(/\d+$/, '2')))
  }

  loseWitness(): void {
    for (const name of this.#witnesses()) rmSync(join(this.fence, name))
  }

  #witnesses(): string[] {
    return readdirSync(this.fence).filter((name) => /^fence-.*-\d+$/.test(name))
  }

  deleteLocks(): void {
    for (const name of readdirSync(this.data)) if (name.includes('lock')) rmSync(join(this.data, name))
  }

  /** `chmod` and `touch` of every file. */
  touchAll(): void {
    for (const directory of new Set([this.data, this.fence])) {
      for (const name of readdirSync(directory)) {
        chmodSync(join(directory, name), 0o600)
        utimesSync(join(directory, name), 0, 0)
      }
    }
  }

  /** `latchkey restore`. */
  async restore(file: string): Promise<void> {
    const now = NOW + this.#clockOffsetMs
    await restoreDatabase({ directory: this.data, file, fence: this.#place, now, onStep: () => {} })
    this.raises++
  }

  /** `latchkey restore` on a machine that never had the database. */
  async restoreElsewhere(file: string): Promise<void> {
    this.#machine = this.newDirectory()
    for (const directory of new Set([this.data, this.fence])) mkdirSync(directory)
    await this.restore(file)
  }

  /** `latchkey fence raise`. */
  async raise(): Promise<void> {
    await raiseFence(this.data, { reason: 'accident', now: NOW + this.#clockOffsetMs }, this.#place)
    this.raises++
  }

  /** `latchkey fence adopt`. */
  async adopt(): Promise<void> {
    await adoptFence(this.data, this.#place)
  }

  async status(): Promise<void> {
    await fenceStatus(this.data, this.#place)
  }

  check(): readonly string[] {
    return checkDatabase(this.data).findings
  }

  get #place(): { readonly directory: string } {
    return { directory: this.fence }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers.keys()) await server.end().catch(() => {})
    rmSync(this.#root, { recursive: true, force: true })
  }
}

export const isRefusal = (error: unknown): error is StoreError => error instanceof StoreError

function run(command: string, ...args: readonly string[]): void {
  execFileSync(command, args, { stdio: ['ignore', 'ignore', 'inherit'] })
}
