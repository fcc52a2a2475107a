/** `latchkey migrate`: migrates a PostgreSQL database to the schema of this program, or prints the statements. */
import { Command } from 'commander'
import { postgresConnection, usesPostgres } from '../config/config.ts'
import { migratePostgres } from '../store/postgres/index.ts'
import { migrations } from '../store/postgres/migrations/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
The first "latchkey serve" also sets up an empty database; a database with an older schema needs this command. Each
step is one transaction: a step that fails changes nothing. The embedded database needs no command: the server
migrates it at startup.

Examples:
  $ latchkey migrate --dry-run       print the statements without running them
  $ LATCHKEY_DATABASE=postgres://latchkey@db.example.org/latchkey latchkey migrate`

export function migrateCommand(): Command {
  const command = new Command('migrate')
    .description('Migrate a PostgreSQL database to the schema of this program.')
    .option('--dry-run', 'print the statements, and change nothing')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--database']).action(() => migrate(command))
}

async function migrate(command: Command): Promise<void> {
  const { config } = configOf(command)
  if (!usesPostgres(config)) {
    throw new UsageError('Nothing to migrate: set --database to a PostgreSQL database.')
  }
  const dryRun = command.opts<{ dryRun?: boolean }>().dryRun === true
  const { from, to } = await migratePostgres(postgresConnection(config), { dryRun })
  if (from === to) process.stdout.write(`The database is up to date: it has schema ${to}.\n`)
  else if (dryRun) process.stdout.write(statements(from, to))
  else process.stdout.write(`The database was migrated from schema ${from} to ${to}.\n`)
}

function statements(from: number, to: number): string {
  const steps = migrations.slice(from, to).map((sql, i) => `-- schema ${from + i + 1}\n${sql.trim()}\n`)
  return `-- From schema ${from} to ${to}:\n${steps.join('\n')}`
}
