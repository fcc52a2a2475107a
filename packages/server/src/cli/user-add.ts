/** `latchkey user add`: an account, made beside a running server too. */
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
NAME is the part before the colon (alice), or the whole user ID (@alice:example.org). The server may be
running or not. The password is asked for twice; --password-stdin reads it from standard input instead.

Examples:
  $ latchkey user add alice
  $ latchkey user add alice --data /var/lib/latchkey
  $ printf %s "$PASSWORD" | latchkey user add alice --password-stdin`

export function userAddCommand(): Command {
  const command = new Command('add')
    .description('Make an account.')
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
  // A first look at the name, before anyone thinks about a password; the database is not held meanwhile.
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
  process.stdout.write(`Made the account ${userId}.\n`)
}

function localpartOf(name: string, serverName: string): string {
  if (!name.startsWith('@')) return name
  const parsed = parseUserId(name)
  if (parsed?.serverName === serverName) return parsed.localpart
  throw new UsageError(`Expected a user of this server, @name:${serverName}, not ${quoted(name)}.`)
}
