/** `latchkey migrate`: brings a PostgreSQL database to the schema of this program, or says what it would do. */
import { Command } from 'commander'
import { postgresConnection, usesPostgres } from '../config/config.ts'
import { migratePostgres } from '../store/postgres/index.ts'
import { migrations } from '../store/postgres/migrations/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const HELP = `
An empty database is set up by the first "latchkey serve" too; one with an older schema waits for this command.
Each step is a transaction: one that fails leaves the database as it was before it. The embedded database needs no
command, it is brought up to date when it is opened.

Examples:
  $ latchkey migrate --dry-run       the statements it would run, and nothing else
  $ LATCHKEY_DATABASE=postgres://latchkey@db.example.org/latchkey latchkey migrate`

export function migrateCommand(): Command {
  const command = new Command('migrate')
    .description('Bring a PostgreSQL database to the schema of this program.')
    .option('--dry-run', 'print what it would do, and change nothing')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--database']).action(() => migrate(command))
}

async function migrate(command: Command): Promise<void> {
  const { config } = configOf(command)
  if (!usesPostgres(config)) {
    throw new UsageError('There is nothing to migrate: name a PostgreSQL database with --database.')
  }
  const dryRun = command.opts<{ dryRun?: boolean }>().dryRun === true
  const { from, to } = await migratePostgres(postgresConnection(config), { dryRun })
  if (from === to) process.stdout.write(`The database is up to date: it has schema ${to}.\n`)
  else if (dryRun) process.stdout.write(statements(from, to))
  else process.stdout.write(`The database had schema ${from} and has schema ${to} now.\n`)
}

function statements(from: number, to: number): string {
  const steps = migrations.slice(from, to).map((sql, i) => `-- schema ${from + i + 1}\n${sql.trim()}\n`)
  return `-- From schema ${from} to ${to}:\n${steps.join('\n')}`
}
