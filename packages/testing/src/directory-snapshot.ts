/**
 * Copies of a data directory that come back as a snapshot of the file system does: each file keeps its identity, so the
 * server cannot see that its witness is of an earlier time. A directory that is restored file by file is refused.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Makes the files of a directory those of another one, in place. No server may use either. */
export function copyInPlace(from: string, to: string): void {
  mkdirSync(to, { recursive: true })
  const names = readdirSync(from)
  for (const name of readdirSync(to).filter((old) => !names.includes(old))) rmSync(join(to, name))
  for (const name of names) writeFileSync(join(to, name), readFileSync(join(from, name)))
}
