/** `latchkey restore`: puts a backup of the embedded database in place, and raises its fence. */
import { Command } from 'commander'
import { fenceOptions, usesPostgres } from '../config/config.ts'
import { restoreDatabase, type RestoreStep, type RestoreSummary } from '../store/sqlite/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { POSTGRES_BACKUP } from './backup.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
FILE is a backup by "latchkey backup", or any copy of a latchkey.db; a log next to it (FILE-wal) is used too. Stop the
server first. The file is checked before anything is changed; the present files are moved aside, never deleted.
The fence of the restored database is raised: keys that may have been issued since the backup are withdrawn, and
clients upload new ones. After a crash in the middle, run the same command again.

Examples:
  $ latchkey restore /backup/latchkey-monday.db
  $ latchkey restore /backup/latchkey.db --data /var/lib/latchkey --fence-dir /var/lib/latchkey-fence`

export function restoreCommand(): Command {
  const command = new Command('restore')
    .description('Replace the embedded database by a backup, and raise the fence.')
    .argument('<FILE>', 'the backup')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--data', '--database', '--fence-dir']).action((file: string) =>
    run(command, file),
  )
}

async function run(command: Command, file: string): Promise<void> {
  const { config } = configOf(command)
  if (usesPostgres(config)) throw new UsageError(POSTGRES_BACKUP)
  const { json = false } = command.opts<{ readonly json?: boolean }>()
  const summary = await restoreDatabase({
    directory: config.dataDir,
    file,
    fence: fenceOptions(config).fence,
    now: Date.now(),
    onStep: process.stderr.isTTY ? showStep : () => {},
  })
  process.stdout.write(json ? `${JSON.stringify(summary)}\n` : describe(summary))
}

function showStep(step: RestoreStep): void {
  process.stderr.write(`${step} ...\n`)
}

function describe(summary: RestoreSummary): string {
  const { file, movedAside, fence, devices, withdrawnKeys, droppedFallbackKeys, lastWriteTs } = summary
  const time = lastWriteTs === null ? 'its beginning' : new Date(lastWriteTs).toISOString()
  const lines = [
    `${file} is restored. Everything after ${time} is lost.`,
    ...(summary.isIncomplete
      ? [
          'The file was copied from a running server without its log: more may be lost. Use "latchkey backup".',
        ]
      : []),
    `The fence is raised; its number is ${fence}. ${withdrawnKeys} one-time keys${
      droppedFallbackKeys ? ', and all fallback keys,' : ''
    } of ${devices} devices are withdrawn; their clients upload new ones at their next sync.`,
    ...(movedAside.length === 0 ? [] : [`The files that were there are now ${movedAside.join(', ')}.`]),
  ]
  return `${lines.join('\n')}\n`
}
