/** The command line: its commands, and the reporting of their failures. */
import { Command } from 'commander'
import { backupCommand } from './backup.ts'
import { configCheckCommand } from './config-check.ts'
import { databaseCheckCommand } from './database-check.ts'
import { describeFailure } from './describe-failure.ts'
import { fenceCommands } from './fence.ts'
import { importSqliteCommand } from './import-sqlite.ts'
import { migrateCommand } from './migrate.ts'
import { registrationTokenCommands } from './registration-token.ts'
import { registrationTokenCreateCommand } from './registration-token-create.ts'
import { restoreCommand } from './restore.ts'
import { serveCommand } from './serve.ts'
import { version } from '../version.ts'
import { userAddCommand } from './user-add.ts'
import { deviceCommands, sessionRevokeCommand, userCommands } from './user.ts'

const EXAMPLES = `
Examples:
  $ latchkey serve                                  run the server on http://127.0.0.1:8008
  $ latchkey user add alice                         create an account; prompts for the password
  $ latchkey registration-token create --uses 5     let five people register
  $ latchkey backup /backup/latchkey.db             copy the embedded database; the server may be running
  $ latchkey config check --config latchkey.yaml    effective settings and their sources

Settings come from flags, LATCHKEY_* variables or a YAML file; docs/reference/configuration.md lists all
of them. Run "latchkey COMMAND --help" for the options of a command.`

/**
 * Runs the command in `argv`, as `process.argv` gives it.
 * Prints failures to stderr: one line if the operator can fix it, a stack trace for a bug. The exit code is then 1.
 */
export async function main(argv: readonly string[]): Promise<void> {
  const program = new Command('latchkey')
    .description(
      'A key server for Matrix end-to-end encryption: every one-time key issued once, durably, in order.',
    )
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .addHelpText('after', EXAMPLES)
    .addCommand(serveCommand())
    .addCommand(
      group(
        'user',
        'Accounts: user add, list, show, lock, unlock, deactivate, reset-password.',
        userAddCommand(),
        ...userCommands(),
      ),
    )
    .addCommand(group('device', 'Devices: device list, delete.', ...deviceCommands()))
    .addCommand(group('session', 'Sessions: session revoke.', sessionRevokeCommand()))
    .addCommand(
      group(
        'registration-token',
        'Registration tokens: registration-token create, list, revoke.',
        registrationTokenCreateCommand(),
        ...registrationTokenCommands(),
      ),
    )
    .addCommand(group('config', 'Configuration: config check.', configCheckCommand()))
    .addCommand(migrateCommand())
    .addCommand(group('import', 'Migration to PostgreSQL: import sqlite.', importSqliteCommand()))
    .addCommand(backupCommand())
    .addCommand(restoreCommand())
    .addCommand(group('fence', 'Rollback fence: fence status, raise, adopt.', ...fenceCommands()))
    .addCommand(group('database', 'Embedded database: database check.', databaseCheckCommand()))
  try {
    await program.parseAsync(argv)
  } catch (error) {
    process.stderr.write(`${describeFailure(error)}\n`)
    process.exitCode = 1
  }
}

function group(name: string, description: string, ...commands: Command[]): Command {
  const parent = new Command(name).description(description).helpCommand(false)
  for (const command of commands) parent.addCommand(command)
  return parent
}
