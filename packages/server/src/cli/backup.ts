/** `latchkey backup`: a consistent copy of the embedded database; the server may be running. */
import { Command } from 'commander'
import { usesPostgres } from '../config/config.ts'
import { backUpDatabase, type BackupSummary } from '../store/sqlite/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
FILE gets the state of one instant, is checked, and appears only when it is complete. The server may be running;
it goes on issuing keys. The witness of the fence is not part of a backup.
"latchkey restore FILE" puts it back.

Examples:
  $ latchkey backup /backup/latchkey-monday.db
  $ latchkey backup /backup/latchkey.db --overwrite --data /var/lib/latchkey`

export const POSTGRES_BACKUP =
  'This command is for the embedded database. Back PostgreSQL up with pg_basebackup and WAL archiving, or with ' +
  'pg_dump; after a restore, or a recovery to a point in time, run "latchkey fence raise" before you serve it.'

type Flags = { readonly overwrite?: boolean; readonly json?: boolean }

export function backupCommand(): Command {
  const command = new Command('backup')
    .description('Copy the embedded database to a file, next to a running server or without one.')
    .argument('<FILE>', 'the file to create')
    .option('--overwrite', 'replace FILE if it exists')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--data', '--database']).action((file: string) => run(command, file))
}

async function run(command: Command, target: string): Promise<void> {
  const { config } = configOf(command)
  if (usesPostgres(config)) throw new UsageError(POSTGRES_BACKUP)
  const { overwrite = false, json = false } = command.opts<Flags>()
  const summary = await backUpDatabase({
    directory: config.dataDir,
    target,
    overwrite,
    onProgress: process.stderr.isTTY ? showProgress : () => {},
  })
  process.stdout.write(json ? `${JSON.stringify(summary)}\n` : describe(summary))
}

function showProgress(copied: number, pages: number): void {
  const percent = Math.floor((100 * copied) / Math.max(1, pages))
  process.stderr.write(`\r${copied} of ${pages} pages copied (${percent} %)${copied === pages ? '\n' : ''}`)
}

function describe({ file, bytes, users, devices, availableKeys, lastWriteTs }: BackupSummary): string {
  const time = lastWriteTs === null ? 'none' : new Date(lastWriteTs).toISOString()
  return (
    `${file} is complete and sound: ${users} users, ${devices} devices, ${availableKeys} available one-time keys, ` +
    `${bytes} bytes, last write ${time}.\n`
  )
}
