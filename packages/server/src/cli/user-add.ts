/** `latchkey user add`: creates an account. */
import { Command } from 'commander'
import { addDatabaseOptions, configOf } from './config-options.ts'
import { printResult } from './output.ts'
import { askPassword, readPassword } from './read-password.ts'
import { databaseName, runAdmin } from './run-admin.ts'

const HELP = `
NAME is the localpart (alice) or the full user ID (@alice:example.org). The server may be running. Prompts
for the password twice; --password-stdin reads it from standard input instead.

Examples:
  $ latchkey user add alice
  $ latchkey user add alice --data /var/lib/latchkey
  $ printf %s "$PASSWORD" | latchkey user add alice --password-stdin`

export function userAddCommand(): Command {
  const command = new Command('add')
    .description('Create an account.')
    .argument('<NAME>', 'the user name')
    .option('--password-stdin', 'read the password from standard input')
    .option('--json', 'print JSON')
    .option('--create', 'create an empty database if there is none')
    .addHelpText('after', HELP)
  return addDatabaseOptions(command).action((name: string) => addUser(command, name))
}

type Options = { readonly passwordStdin?: boolean; readonly json?: boolean; readonly create?: boolean }

async function addUser(command: Command, name: string): Promise<void> {
  const { config } = configOf(command)
  const { passwordStdin, json, ...options } = command.opts<Options>()
  // Checks the name before the password prompt; the database is closed in between.
  const { userId } = await runAdmin(config, 'user free-name', { name }, options)
  const password = passwordStdin ? await readPassword() : await askPassword(userId)
  const added = await runAdmin(config, 'user add', { name, password }, options)
  printResult(json, added, () => `Created the account ${added.userId} in ${databaseName(config)}.\n`)
}
