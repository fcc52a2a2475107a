/** `latchkey import sqlite`: moves an embedded installation to PostgreSQL. */
import { Command } from 'commander'
import { fenceOptions, postgresConnection, usesPostgres } from '../config/config.ts'
import { GENERAL_KEYS } from '../config/keys.ts'
import {
  type ImportProgress,
  type ImportSummary,
  importSqlite,
  undoMove,
} from '../store/import-sqlite/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
FILE is the latchkey.db of a data directory, or the directory. Stop its server first, and give an empty PostgreSQL
database that no server uses. Set --fence-dir if the witness is not in the directory of FILE: a database that was
restored and not served since is refused, because it would issue keys a second time.
Imports everything: accounts, sessions, keys in their order with their history, undelivered messages. The import is
one transaction, compared row by row before it commits; a failed import leaves PostgreSQL unchanged. Afterwards the
embedded database is marked as moved, and "latchkey serve" refuses to open it.

Examples:
  $ latchkey import sqlite ./latchkey-data/latchkey.db --database postgres://latchkey@db/latchkey --dry-run
  $ latchkey import sqlite ./latchkey-data/latchkey.db --database postgres://latchkey@db/latchkey
  $ latchkey import sqlite ./latchkey-data/latchkey.db --undo        after a trial: use the embedded database again

See docs/guides/moving-to-postgresql.md for the steps.`

type Flags = { readonly dryRun?: boolean; readonly keepSource?: boolean; readonly undo?: boolean }

export function importSqliteCommand(): Command {
  const command = new Command('sqlite')
    .description('Move an embedded installation to PostgreSQL.')
    .argument('<FILE>', 'the latchkey.db of a data directory')
    .option('--dry-run', 'copy and compare everything, then roll back')
    .option('--keep-source', 'do not mark FILE as moved; for trials; never serve both')
    .option('--undo', 'only remove the marker from FILE')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--database', '--fence-dir']).action((file: string) => run(command, file))
}

async function run(command: Command, path: string): Promise<void> {
  const { dryRun = false, keepSource = false, undo = false } = command.opts<Flags>()
  if (undo && (dryRun || keepSource)) throw new UsageError('--undo cannot be combined with other flags.')
  if (undo) return undoIt(path)
  const { config } = configOf(command)
  if (!usesPostgres(config)) {
    throw new UsageError('Missing target: set --database to an empty PostgreSQL database.')
  }
  // A dry run may use a copy of a database in use, and the witness of its server may be ahead of the copy.
  const { fence } = dryRun ? {} : fenceOptions(config)
  const fenceDirectories = fence === undefined ? [] : [fence.directory, ...fence.searched]
  const targetName = GENERAL_KEYS.database.kind.format(config.database)
  const summary = await importSqlite({
    path,
    target: postgresConnection(config),
    targetName,
    dryRun,
    keepSource,
    fenceDirectories,
    now: Date.now,
    onProgress: reportProgress(),
  })
  process.stdout.write(describe(summary, targetName, { dryRun, keepSource }))
}

function undoIt(path: string): void {
  const { file, to } = undoMove(path)
  process.stdout.write(
    `${file} can be served again. Never serve ${to} as well. If any client was served from there, it issued keys that are still available here: run "latchkey fence raise" on this database before you serve it.\n`,
  )
}

/** Imports shorter than this print no progress. */
const REPORT_EVERY_MS = 1_000

function reportProgress(): (progress: ImportProgress) => void {
  let reportedAtMs = performance.now()
  let unfinished: string | undefined
  return ({ table, copied, rows }) => {
    const isDue = performance.now() - reportedAtMs >= REPORT_EVERY_MS
    const completes = copied === rows && unfinished === table
    if (!isDue && !completes) return
    reportedAtMs = performance.now()
    unfinished = table
    process.stderr.write(`${table}: ${copied} of ${rows} rows (${Math.floor((100 * copied) / rows)} %)\n`)
  }
}

function describe(
  { file, rows, availableKeys }: ImportSummary,
  targetName: string,
  { dryRun, keepSource }: { readonly dryRun: boolean; readonly keepSource: boolean },
): string {
  const n = (table: string): number => rows.get(table) ?? 0
  const moved =
    `${n('users')} users, ${n('devices')} devices, ${n('access_tokens')} sessions, ` +
    `${n('one_time_keys')} one-time keys (${availableKeys} of them available), ${n('inbox')} undelivered messages`
  const lines = dryRun
    ? [
        `${file} can be moved to ${targetName}: ${moved}.`,
        'Every row was copied, read back and compared; then everything was rolled back. Nothing was changed.',
      ]
    : [
        `Moved ${file} to ${targetName}: ${moved}.`,
        'Every row, and the count and digest of every pool, was read back and compared.',
        keepSource
          ? `${file} is not marked as moved (--keep-source). Never serve both: each would issue the keys of the other.`
          : `${file} is marked as moved and can no longer be served. Serve the PostgreSQL database: latchkey serve --database URL`,
      ]
  return `${lines.join('\n')}\n`
}
