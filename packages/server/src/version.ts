/** The version of this program, as its manifest states it. */
import { readFileSync } from 'node:fs'

const MANIFEST = new URL('../package.json', import.meta.url)

export function version(): string {
  const manifest: unknown = JSON.parse(readFileSync(MANIFEST, 'utf8'))
  return (manifest as { version: string }).version
}
