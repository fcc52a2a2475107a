/** One installation with the embedded database, for the accidents program: its directories, servers and operator. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../packages/server/src/config/config.ts'
import type { Session } from '../../packages/server/src/session.ts'
import type { Store } from '../../packages/server/src/store.ts'
import { MatrixError } from '../../packages/server/src/matrix-error.ts'
import { StoreError } from '../../packages/server/src/store/store-error.ts'
import {
  backUpDatabase,
  fenceStatus,
  openSqliteStore,
  restoreDatabase,
} from '../../packages/server/src/store/sqlite/index.ts'
import { checkDatabase } from '../../packages/server/src/store/sqlite/check-database.ts'
import { login } from '../../packages/server/test/store-contract/test-device.ts'
import { claim, keys, NOW, upload } from '../../packages/server/test/support/store-calls.ts'
import { History } from './history.ts'
import type { Case, Kind } from './table.ts'

const DATABASE = 'latchkey.db'

export class EmbeddedInstallation {
  readonly history = new History()
  raises = 0
  readonly #root = mkdtempSync(join(tmpdir(), 'latchkey-accident-'))
  readonly #stores: Store[] = []
  readonly #case: Case<Kind>
  #data = this.#directory('data')
  #fence: string
  #moves = 0
  #session: Session | undefined

  constructor(one: Case<Kind>) {
    this.#case = one
    this.#fence = one.layout === 'witness elsewhere' ? this.#directory('fence') : this.#data
  }

  #directory(name: string): string {
    const path = join(this.#root, name)
    mkdirSync(path)
    return path
  }

  get #fenceOption(): { readonly directory: string } {
    return { directory: this.#fence }
  }

  async open(clockOffsetMs = 0): Promise<Store> {
    const store = await openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir: this.#data }),
      fence: this.#fenceOption,
      onFence: ({ kind }) => (this.raises += Number(kind === 'raised')),
      now: () => NOW + clockOffsetMs,
    })
    this.#stores.push(store)
    return store
  }

  /** The first server, with a device and its keys. */
  async begin(): Promise<Store> {
    const store = await this.open()
    this.#session = await login(store, NOW)
    await upload(store, this.#session, keys(0, 40))
    return store
  }

  async claim(store: Store, count: number): Promise<void> {
    for (let n = 0; n < count; n++) {
      try {
        this.history.issued(await claim(store))
      } catch (error) {
        if (!(error instanceof MatrixError && error.status === 503)) throw error
        this.history.refusals++
      }
    }
  }

  /**
   * Ends a server as the case says. After a kill, the files have the content of that moment. They stay the same files:
   * a witness that is copied is refused, and would hide what follows.
   */
  async end(store: Store): Promise<void> {
    if (this.#case.end === 'stopped') return store.close()
    const directories = new Set([this.#data, this.#fence])
    const contents = [...directories].flatMap((directory) => contentOf(directory))
    await store.close()
    for (const [file, content] of contents) writeFileSync(file, content)
  }

  /** An online backup. */
  async backUp(): Promise<string> {
    const file = join(this.#directory(`backup-${++this.#moves}`), 'copy.db')
    await backUpDatabase({ directory: this.#data, target: file, overwrite: false, onProgress: () => {} })
    return file
  }

  /** The files of the database as they are. */
  copyDatabase(): string {
    const copy = this.#directory(`copy-${++this.#moves}`)
    for (const name of databaseFiles(this.#data)) cpSync(join(this.#data, name), join(copy, name))
    return copy
  }

  putBackDatabase(copy: string): void {
    for (const name of databaseFiles(this.#data)) rmSync(join(this.#data, name))
    for (const name of readdirSync(copy)) cpSync(join(copy, name), join(this.#data, name))
  }

  copyOver(file: string, { log }: { readonly log: 'stays' | 'is deleted' }): void {
    cpSync(file, join(this.#data, DATABASE))
    if (log === 'is deleted') this.deleteLog()
  }

  deleteLog(): void {
    for (const name of databaseFiles(this.#data)) if (name !== DATABASE) rmSync(join(this.#data, name))
  }

  async restore(file: string): Promise<void> {
    await restoreDatabase({
      directory: this.#data,
      file,
      fence: this.#fenceOption,
      now: NOW + this.#case.clockOffsetMs,
      onStep: () => {},
    })
    this.raises++
  }

  loseWitness(): void {
    for (const name of readdirSync(this.#fence))
      if (name.startsWith('fence-')) rmSync(join(this.#fence, name))
  }

  copyWitness(): void {
    for (const name of readdirSync(this.#fence)) {
      if (/^fence-.*-1$/.test(name))
        cpSync(join(this.#fence, name), join(this.#fence, name.replace(/1$/, '2')))
    }
  }

  deleteLocks(): void {
    for (const name of readdirSync(this.#data)) if (name.includes('lock')) rmSync(join(this.#data, name))
  }

  rename(): void {
    const renamed = join(this.#root, `renamed-${++this.#moves}`)
    renameSync(this.#data, renamed)
    if (this.#fence === this.#data) this.#fence = renamed
    this.#data = renamed
  }

  status(): Promise<unknown> {
    return fenceStatus(this.#data, this.#fenceOption)
  }

  check(): readonly string[] {
    return checkDatabase(this.#data).findings
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#stores) await store.close().catch(() => {})
    rmSync(this.#root, { recursive: true, force: true })
  }
}

export const isRefusal = (error: unknown): boolean => error instanceof StoreError

function databaseFiles(directory: string): string[] {
  return [DATABASE, `${DATABASE}-wal`, `${DATABASE}-shm`].filter((name) => existsSync(join(directory, name)))
}

function contentOf(directory: string): (readonly [file: string, content: Buffer])[] {
  return readdirSync(directory)
    .filter((name) => !name.includes('lock') && !name.endsWith('-shm') && !name.endsWith('.sock'))
    .map((name) => [join(directory, name), readFileSync(join(directory, name))])
}
