/** `latchkey user add`: creates an account; the server may be running. */
import { parseUserId } from '@latchkey/protocol'
import { Command } from 'commander'
import { registerAccount, requireFreeName } from '../accounts/register-account.ts'
import { Passwords } from '../accounts/passwords.ts'
import { quoted } from '../matrix-error.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'
import { askPassword, readPassword } from './read-password.ts'
import { withAccounts } from './with-accounts.ts'

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
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--data', '--database', '--server-name']).action((name: string) =>
    addUser(command, name),
  )
}

async function addUser(command: Command, name: string): Promise<void> {
  const { config } = configOf(command)
  const { passwordStdin } = command.opts<{ passwordStdin?: boolean }>()
  // Checks the name before the password prompt; the database is closed in between.
  const userId = await withAccounts(config, (accounts, serverName) =>
    requireFreeName({ accounts, serverName }, localpartOf(name, serverName)),
  )
  const password = passwordStdin ? await readPassword() : await askPassword(userId)
  await withAccounts(config, (accounts, serverName) =>
    registerAccount(
      {
        accounts,
        passwords: new Passwords(),
        serverName,
        now: Date.now,
        passwordMinLength: config.passwordMinLength,
      },
      { localpart: localpartOf(name, serverName), password },
    ),
  )
  process.stdout.write(`Created the account ${userId}.\n`)
}

function localpartOf(name: string, serverName: string): string {
  if (!name.startsWith('@')) return name
  const parsed = parseUserId(name)
  if (parsed?.serverName === serverName) return parsed.localpart
  throw new UsageError(`Expected a user of this server, @name:${serverName}, not ${quoted(name)}.`)
}
