/** `latchkey database check`: SQLite's full structure check; the server may be running. */
import { Command } from 'commander'
import { checkDatabase } from '../store/sqlite/check-database.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { usesPostgres } from '../config/config.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
Reads the whole database: 2 seconds for a million keys. The server runs a quicker check at each start.
Exits with 0 if the database is sound, with 1 if it is damaged.

Examples:
  $ latchkey database check
  $ latchkey database check --data /var/lib/latchkey`

export function databaseCheckCommand(): Command {
  const command = new Command('check')
    .description('Check the whole database for damage.')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--data']).action(() => {
    const { config } = configOf(command)
    if (usesPostgres(config)) {
      throw new UsageError('This command checks the embedded database; use pg_amcheck for PostgreSQL.')
    }
    const { file, findings } = checkDatabase(config.dataDir)
    if (findings.length === 0) {
      process.stdout.write(`${file} is sound: all tables and indexes were read, no damage found.\n`)
      return
    }
    process.stdout.write(`${file} is damaged:\n${findings.map((finding) => `  ${finding}\n`).join('')}`)
    process.stdout.write('Stop the server, and replace it by a backup with "latchkey restore FILE".\n')
    process.exitCode = 1
  })
}
