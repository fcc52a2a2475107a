/** `latchkey import sqlite`: moves an embedded installation to PostgreSQL. */
import { Command } from 'commander'
import { postgresConnection, usesPostgres } from '../config/config.ts'
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
FILE is the latchkey.db of a data directory, or the directory. Stop its server first, and name an empty
PostgreSQL database that no server uses. If its witness is not beside FILE, name --fence-dir: a database that was
restored and not served since is refused, because it would issue keys that it had issued before. Everything goes along: accounts, sessions, keys in their order and all
that is remembered of them, messages that wait. It is one transaction, compared row by row before it is
committed: an import that fails leaves PostgreSQL as it was. Then the embedded database is marked as moved, and
"latchkey serve" refuses to open it.

Examples:
  $ latchkey import sqlite ./latchkey-data/latchkey.db --database postgres://latchkey@db/latchkey --dry-run
  $ latchkey import sqlite ./latchkey-data/latchkey.db --database postgres://latchkey@db/latchkey
  $ latchkey import sqlite ./latchkey-data/latchkey.db --undo        after a trial: serve the embedded one again

docs/guides/moving-to-postgresql.md says it step by step.`

type Flags = { readonly dryRun?: boolean; readonly keepSource?: boolean; readonly undo?: boolean }

export function importSqliteCommand(): Command {
  const command = new Command('sqlite')
    .description('Move an embedded installation to PostgreSQL.')
    .argument('<FILE>', 'the latchkey.db of a data directory')
    .option('--dry-run', 'copy and compare everything, then undo it')
    .option('--keep-source', 'leave FILE unmarked: for a trial; never serve both')
    .option('--undo', 'take the mark off FILE, and do nothing else')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--database', '--fence-dir']).action((file: string) => run(command, file))
}

async function run(command: Command, path: string): Promise<void> {
  const { dryRun = false, keepSource = false, undo = false } = command.opts<Flags>()
  if (undo && (dryRun || keepSource)) throw new UsageError('--undo goes with no other flag.')
  if (undo) return undoIt(path)
  const { config } = configOf(command)
  if (!usesPostgres(config)) {
    throw new UsageError('Where to? Name an empty PostgreSQL database with --database.')
  }
  // A rehearsal is made on a copy, which the witness of a server that runs on may well be ahead of.
  const fenceDirectory = dryRun || !config.fence ? undefined : config.fenceDir
  const targetName = GENERAL_KEYS.database.kind.format(config.database)
  const summary = await importSqlite({
    path,
    target: postgresConnection(config),
    targetName,
    dryRun,
    keepSource,
    ...(fenceDirectory !== undefined && { fenceDirectory }),
    now: Date.now,
    onProgress: tellProgress(),
  })
  process.stdout.write(describe(summary, targetName, { dryRun, keepSource }))
}

function undoIt(path: string): void {
  const { file, to } = undoMove(path)
  process.stdout.write(
    `${file} can be served again. Never serve ${to} as well. If anybody has been served from there, keys were issued that this database does not know of: run "latchkey fence raise" on it before you serve it.\n`,
  )
}

/** Short work says nothing before its end. */
const TELL_EVERY_MS = 1_000

function tellProgress(): (progress: ImportProgress) => void {
  let toldAtMs = performance.now()
  let unfinished: string | undefined
  return ({ table, copied, rows }) => {
    const isDue = performance.now() - toldAtMs >= TELL_EVERY_MS
    const completes = copied === rows && unfinished === table
    if (!isDue && !completes) return
    toldAtMs = performance.now()
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
    `${n('one_time_keys')} one-time keys (${availableKeys} of them available), ${n('inbox')} messages that wait`
  const lines = dryRun
    ? [
        `${file} can be moved to ${targetName}: ${moved}.`,
        'Every row was copied, read back and compared, and all of it was undone: nothing was changed.',
      ]
    : [
        `Moved ${file} to ${targetName}: ${moved}.`,
        'Every row was read back and compared, and so were the count and the digest of every pool.',
        keepSource
          ? `${file} is not marked as moved, as you asked. Never serve both: each would issue the keys of the other.`
          : `${file} is marked as moved and is not served any more. Serve the PostgreSQL database: latchkey serve --database URL`,
      ]
  return `${lines.join('\n')}\n`
}
