/** `latchkey fence`: what stands about the rollback fence (docs/guides/operating.md), raising it, and taking a database as it is. */
import { type DeviceId, parseUserId, type UserId } from '@latchkey/protocol'
import { Command } from 'commander'
import { fenceOptions, postgresConnection, usesPostgres } from '../config/config.ts'
import type { Judgement } from '../fence/judge.ts'
import type { AdoptedWitness, FenceStatus, RaiseCommand } from '../fence/status.ts'
import { quoted } from '../matrix-error.ts'
import { adoptPostgresFence, postgresFenceStatus, raisePostgresFence } from '../store/postgres/index.ts'
import { adoptFence, fenceStatus, raiseFence } from '../store/sqlite/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const FLAGS = ['--data', '--database', '--fence-dir']

const STATUS_HELP = `
Says how often the fence was raised, why, and what each witness in the directory says of the database.
Ends with 1 if a witness is ahead of the database: the next server that starts with it raises the fence.
An embedded database must not be in use by a server; PostgreSQL may.

Examples:
  $ latchkey fence status
  $ latchkey fence status --database postgres://latchkey@db.example.org/latchkey --fence-dir /var/lib/latchkey`

const RAISE_HELP = `
For a database that lost writes which no process can witness: a backup restored to a new machine, for
instance. Every one-time key that it has is withdrawn from use before it could be issued a second time;
clients are told, and upload new ones. With --user and --device only that device's keys go.
Servers on PostgreSQL may be running. An embedded database must not be in use.

Examples:
  $ latchkey fence raise
  $ latchkey fence raise --drop-fallback-keys            more than six days may have been lost
  $ latchkey fence raise --user @alice:example.org --device PHONE`

const ADOPT_HELP = `
Sets the witnesses in the directory to what the database has, so that the next start raises nothing. Only
when you know that nothing was acknowledged which the database does not have. Stop the servers first.

Examples:
  $ latchkey fence adopt
  $ latchkey fence adopt --database postgres://latchkey@db.example.org/latchkey`

export function fenceCommands(): Command[] {
  return [statusCommand(), raiseCommand(), adoptCommand()]
}

function statusCommand(): Command {
  const command = new Command('status')
    .description('Say what stands about the fence of a database.')
    .addHelpText('after', STATUS_HELP)
  return addConfigOptions(command, FLAGS).action(async () => {
    const { config } = configOf(command)
    const status = usesPostgres(config)
      ? await postgresFenceStatus(postgresConnection(config), fenceOptions(config).fence)
      : await fenceStatus(config.dataDir, fenceOptions(config).fence)
    process.stdout.write(describeStatus(status))
    if (status.witnesses.some(({ judgement }) => judgement.kind === 'behind')) process.exitCode = 1
  })
}

function raiseCommand(): Command {
  const command = new Command('raise')
    .description('Withdraw every one-time key of a database from use; clients upload new ones.')
    .option('--user <ID>', 'with --device: the keys of one device only')
    .option('--device <ID>', 'with --user: the keys of one device only')
    .option(
      '--drop-fallback-keys',
      'fallback keys go too; without it, if the last write is more than six days old',
    )
    .addHelpText('after', RAISE_HELP)
  return addConfigOptions(command, FLAGS).action(async () => {
    const { config } = configOf(command)
    const { user, device, dropFallbackKeys } = command.opts<{
      user?: string
      device?: string
      dropFallbackKeys?: boolean
    }>()
    const one = deviceOf(user, device)
    const order: RaiseCommand = {
      reason: 'raised by command',
      now: Date.now(),
      ...(one && { device: one }),
      ...(dropFallbackKeys && { dropFallbackKeys }),
    }
    const { number } = usesPostgres(config)
      ? await raisePostgresFence(postgresConnection(config), order)
      : await raiseFence(config.dataDir, order)
    process.stdout.write(
      one === undefined
        ? `The fence is raised; its number is ${number}. Clients are told, and upload new keys.\n`
        : `The keys of ${one.userId}'s device ${one.deviceId} are withdrawn from use. It will upload new ones.\n`,
    )
  })
}

function adoptCommand(): Command {
  const command = new Command('adopt')
    .description('Take a database as it is for the truth, after a deliberate restore or a move.')
    .addHelpText('after', ADOPT_HELP)
  return addConfigOptions(command, FLAGS).action(async () => {
    const { config } = configOf(command)
    const { fence } = fenceOptions(config)
    if (fence === undefined) throw new UsageError('The fence is off: there are no witnesses to set.')
    const adopted = usesPostgres(config)
      ? await adoptPostgresFence(postgresConnection(config), fence)
      : await adoptFence(config.dataDir, fence)
    process.stdout.write(describeAdopted(adopted, fence.directory))
    if (adopted.some((witness) => !witness.adopted)) process.exitCode = 1
  })
}

/** @throws {UsageError} when only one of the two is there, or the user ID is none. */
function deviceOf(
  user: string | undefined,
  device: string | undefined,
): { readonly userId: UserId; readonly deviceId: DeviceId } | undefined {
  if (user === undefined && device === undefined) return undefined
  if (user === undefined || device === undefined)
    throw new UsageError('One device is named by --user and --device together.')
  if (parseUserId(user) === undefined)
    throw new UsageError(`--user: expected @name:server, not ${quoted(user)}.`)
  return { userId: user as UserId, deviceId: device as DeviceId }
}

function describeStatus({ epoch, number, position, raised, witnesses }: FenceStatus): string {
  const lines = [
    number === 0
      ? 'The fence was never raised.'
      : `The fence was raised ${number === 1 ? 'once' : `${number} times`}.`,
    `Epoch ${epoch}, position ${position}.`,
    ...raised.map(
      ({ epoch: ended, endedTs, reason, endPosition }) =>
        `  ${new Date(endedTs).toISOString()}  epoch ${ended} ended at ${endPosition}: ${reason}`,
    ),
    witnesses.length === 0 ? 'No witness of this database is in the directory.' : 'Witnesses:',
    ...witnesses.map(({ file, judgement }) => `  ${file}: ${describeJudgement(judgement)}`),
  ]
  return `${lines.join('\n')}\n`
}

function describeJudgement(judgement: Judgement): string {
  switch (judgement.kind) {
    case 'holds':
      return 'the database has all that was acknowledged'
    case 'fenced':
      return 'the database had gone back, and the fence was raised for it'
    case 'behind':
      return `the database went back: write ${judgement.acknowledged} was acknowledged, it has ${judgement.found}`
  }
}

function describeAdopted(adopted: readonly AdoptedWitness[], directory: string): string {
  if (adopted.length === 0) return `There is no witness of this database in ${directory}.\n`
  return adopted
    .map((witness) =>
      witness.adopted
        ? `${witness.file} is set to what the database has.\n`
        : `${witness.file} is in use by a server: stop it first.\n`,
    )
    .join('')
}
