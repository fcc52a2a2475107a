/** A data directory that can be restored: stores are opened in it, its files are copied, and the copies put back. */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG, fenceOptions, storeOptions } from '../../src/config/config.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import type { Store } from '../../src/store.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'

export type Opened = { readonly store: Store; readonly events: readonly FenceEvent[] }

export class RewindableDirectory {
  readonly path = mkdtempSync(join(tmpdir(), 'latchkey-rewind-'))
  readonly #copies: string[] = []
  readonly #opened = new Set<Store>()

  async open(now: () => number = Date.now): Promise<Opened> {
    const config = { ...DEFAULT_CONFIG, dataDir: this.path }
    const events: FenceEvent[] = []
    const store = await openSqliteStore({
      ...storeOptions(config),
      ...fenceOptions(config),
      onFence: (event) => events.push(event),
      now,
    })
    this.#opened.add(store)
    return { store, events }
  }

  /** Copies the files as they are: what a killed process leaves, and what a file-copying backup has. */
  copy(): Copy {
    const directory = mkdtempSync(join(tmpdir(), 'latchkey-rewind-'))
    this.#copies.push(directory)
    for (const name of this.#files()) cpSync(join(this.path, name), join(directory, name))
    return { directory }
  }

  /** Puts a copy back. No store may be open. Files that are not put back are unchanged. */
  putBack({ directory }: Copy, { witness }: { readonly witness: boolean }): void {
    const chosen = (name: string): boolean => witness || !isWitness(name)
    for (const name of this.#files().filter((file) => !isWitness(file))) rmSync(join(this.path, name))
    // In place, as a snapshot of the block device does: a witness that was restored as a file is recognised.
    for (const name of readdirSync(directory).filter(chosen)) {
      writeFileSync(join(this.path, name), readFileSync(join(directory, name)))
    }
  }

  /** The paths of the witness files. */
  get witnesses(): string[] {
    return this.#files()
      .filter(isWitness)
      .map((name) => join(this.path, name))
  }

  #files(): string[] {
    return readdirSync(this.path).filter((name) => !name.includes('lock') && !name.endsWith('-shm'))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#opened) await store.close()
    for (const directory of [this.path, ...this.#copies]) rmSync(directory, { recursive: true, force: true })
  }
}

export type Copy = { readonly directory: string }

function isWitness(name: string): boolean {
  return name.startsWith('fence-')
}
