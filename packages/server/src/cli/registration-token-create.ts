/** `latchkey registration-token create`: creates a token for self-service registration. */
import { Command } from 'commander'
import { createRegistrationToken } from '../accounts/registration-token.ts'
import { duration, type Kind, whole } from '../config/kinds.ts'
import { quoted } from '../matrix-error.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'
import { withAccounts } from './with-accounts.ts'

const MINUTE_MS = 60_000
const YEAR_MS = 365 * 86_400_000
const USES = whole(1, 1_000_000)
const EXPIRES_IN = duration(MINUTE_MS, 10 * YEAR_MS)

const HELP = `
Prints the token, which cannot be shown again. It works while the server has "registration: token", the
default. The server may be running.

Examples:
  $ latchkey registration-token create --uses 1
  $ latchkey registration-token create --uses 20 --expires-in 7d --data /var/lib/latchkey`

export function registrationTokenCreateCommand(): Command {
  const command = new Command('create')
    .description('Create a token that lets people register accounts.')
    .option('--uses <N>', 'how many accounts it can create (default: no limit)')
    .option('--expires-in <TIME>', 'lifetime: 30m, 12h, 7d (default: no expiry)')
    .addHelpText('after', HELP)
  return addConfigOptions(command, ['--data', '--database', '--server-name']).action(() =>
    createToken(command),
  )
}

async function createToken(command: Command): Promise<void> {
  const { uses, expiresIn } = command.opts<{ uses?: string; expiresIn?: string }>()
  const usesAllowed = parse('--uses', USES, uses)
  const lifetimeMs = parse('--expires-in', EXPIRES_IN, expiresIn)
  const token = await withAccounts(configOf(command).config, (accounts) =>
    createRegistrationToken(
      { accounts, now: Date.now },
      {
        ...(usesAllowed !== undefined && { usesAllowed }),
        ...(lifetimeMs !== undefined && { expiresTs: Date.now() + lifetimeMs }),
      },
    ),
  )
  process.stdout.write(`${token}\n`)
}

function parse<T>(flag: string, kind: Kind<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined
  const value = kind.parse(text)
  if (value === undefined) throw new UsageError(`${flag} must be ${kind.expects}, not ${quoted(text)}.`)
  return value
}
