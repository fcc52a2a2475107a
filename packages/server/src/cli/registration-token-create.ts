/** `latchkey registration-token create`: creates a token for self-service registration. */
import { Command } from 'commander'
import { duration, type Kind, whole } from '../config/kinds.ts'
import { quoted } from '../matrix-error.ts'
import { addDatabaseOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'
import { printResult } from './output.ts'
import { databaseName, runAdmin } from './run-admin.ts'

const MINUTE_MS = 60_000
const YEAR_MS = 365 * 86_400_000
const USES = whole(1, 1_000_000)
const EXPIRES_IN = duration(MINUTE_MS, 10 * YEAR_MS)

const HELP = `
Prints the token on standard output; it cannot be shown again. It works while the server has "registration: token", the
default. The server may be running.

Examples:
  $ latchkey registration-token create --uses 1
  $ latchkey registration-token create --uses 20 --expires-in 7d --data /var/lib/latchkey`

export function registrationTokenCreateCommand(): Command {
  const command = new Command('create')
    .description('Create a token that lets people register accounts.')
    .option('--uses <N>', 'how many accounts it can create (default: no limit)')
    .option('--expires-in <TIME>', 'lifetime: 30m, 12h, 7d (default: no expiry)')
    .option('--json', 'print JSON')
    .option('--create', 'create an empty database if there is none')
    .addHelpText('after', HELP)
  return addDatabaseOptions(command).action(() => createToken(command))
}

type Options = {
  readonly uses?: string
  readonly expiresIn?: string
  readonly json?: boolean
  readonly create?: boolean
}

async function createToken(command: Command): Promise<void> {
  const { config } = configOf(command)
  const { uses, expiresIn, json, ...options } = command.opts<Options>()
  const usesAllowed = parse('--uses', USES, uses)
  const lifetimeMs = parse('--expires-in', EXPIRES_IN, expiresIn)
  const limits = {
    ...(usesAllowed !== undefined && { usesAllowed }),
    ...(lifetimeMs !== undefined && { expiresTs: Date.now() + lifetimeMs }),
  }
  const created = await runAdmin(config, 'registration-token create', limits, options)
  process.stderr.write(`Created a registration token in ${databaseName(config)}.\n`)
  printResult(json, created, () => `${created.token}\n`)
}

function parse<T>(flag: string, kind: Kind<T>, text: string | undefined): T | undefined {
  if (text === undefined) return undefined
  const value = kind.parse(text)
  if (value === undefined) throw new UsageError(`${flag} must be ${kind.expects}, not ${quoted(text)}.`)
  return value
}
