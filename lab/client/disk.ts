/** Storage of a naive bot: one text, written in one step. */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'

export interface Disk {
  read(): string | undefined
  write(text: string): void
}

export function fileDisk(path: string): Disk {
  return {
    read: () => (existsSync(path) ? readFileSync(path, 'utf8') : undefined),
    write(text) {
      writeFileSync(`${path}.new`, text)
      renameSync(`${path}.new`, path)
    },
  }
}
