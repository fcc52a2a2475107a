/** `latchkey database check`: SQLite's full structure check, beside a running server too. */
import { Command } from 'commander'
import { checkDatabase } from '../store/sqlite/check-database.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { usesPostgres } from '../config/config.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
Reads the whole database: 2 seconds for a million keys. The server makes a quicker check at each start.
Ends with 0 when nothing was found, else with 1.

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
      throw new UsageError('This checks the embedded database; for PostgreSQL, use its own pg_amcheck.')
    }
    const { file, findings } = checkDatabase(config.dataDir)
    if (findings.length === 0) {
      process.stdout.write(`${file} is sound: every table and index was read, nothing was found.\n`)
      return
    }
    process.stdout.write(`${file} is damaged:\n${findings.map((finding) => `  ${finding}\n`).join('')}`)
    process.stdout.write('Stop the server and restore the data directory from a backup.\n')
    process.exitCode = 1
  })
}
