/** `latchkey fence`: status, raise and adopt for the rollback fence (docs/guides/operating.md). */
import { type DeviceId, parseUserId, type UserId } from '@latchkey/protocol'
import { Command } from 'commander'
import { fenceOptions, postgresConnection, usesPostgres } from '../config/config.ts'
import type { WitnessPlaces } from '../config/witness-places.ts'
import type { Judgement } from '../fence/judge.ts'
import type { AdoptedWitness, FenceStatus, RaiseCommand } from '../fence/status.ts'
import { quoted } from '../matrix-error.ts'
import { adoptPostgresFence, postgresFenceStatus, raisePostgresFence } from '../store/postgres/index.ts'
import { adoptFence, fenceStatus, raiseFence } from '../store/sqlite/index.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { UsageError } from './describe-failure.ts'

const FLAGS = ['--data', '--database', '--fence-dir']

const STATUS_HELP = `
Prints how often the fence was raised and why, and compares each witness in the directory with the database.
Exits with 1 if a witness is ahead of the database: the next server that starts with it raises the fence; or if a
witness was copied or restored: a server does not start with it before "fence raise" or "fence adopt".
Stop the server first if the database is embedded; PostgreSQL servers may be running.

Examples:
  $ latchkey fence status
  $ latchkey fence status --database postgres://latchkey@db.example.org/latchkey --fence-dir /var/lib/latchkey`

const RAISE_HELP = `
For a database that lost writes without a witness, such as a backup restored to a new machine, or whose witness was
restored with it, such as a snapshot or an archive of the data directory. Withdraws all
one-time keys in the database, so that none is issued a second time; clients are notified and upload new
ones. With --user and --device, only the keys of that device are withdrawn.
Stop the server first if the database is embedded; PostgreSQL servers may be running.

Examples:
  $ latchkey fence raise
  $ latchkey fence raise --drop-fallback-keys            if more than six days may have been lost
  $ latchkey fence raise --user @alice:example.org --device PHONE`

const ADOPT_HELP = `
Sets the witnesses in the directory to the state of the database, so that the next start neither raises the fence nor
refuses a copied witness: after a move of a stopped installation. Use it only if the database has every
acknowledged write. Stop the servers first.

Examples:
  $ latchkey fence adopt
  $ latchkey fence adopt --database postgres://latchkey@db.example.org/latchkey`

export function fenceCommands(): Command[] {
  return [statusCommand(), raiseCommand(), adoptCommand()]
}

function statusCommand(): Command {
  const command = new Command('status')
    .description('Print the fence status of a database.')
    .addHelpText('after', STATUS_HELP)
  return addConfigOptions(command, FLAGS).action(async () => {
    const { config } = configOf(command)
    const status = usesPostgres(config)
      ? await postgresFenceStatus(postgresConnection(config), fenceOptions(config).fence)
      : await fenceStatus(config.dataDir, fenceOptions(config).fence)
    process.stdout.write(describeStatus(status, fenceOptions(config).fence))
    if (status.witnesses.some(({ judgement, isCopy }) => isCopy || judgement.kind === 'behind'))
      process.exitCode = 1
  })
}

function raiseCommand(): Command {
  const command = new Command('raise')
    .description('Withdraw all one-time keys of a database; clients upload new ones.')
    .option('--user <ID>', 'with --device: only the keys of one device')
    .option('--device <ID>', 'with --user: only the keys of one device')
    .option(
      '--drop-fallback-keys',
      'also withdraw fallback keys (automatic if the last write is more than six days old)',
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
    const { fence } = fenceOptions(config)
    const { number } = usesPostgres(config)
      ? await raisePostgresFence(postgresConnection(config), order, fence)
      : await raiseFence(config.dataDir, order, fence)
    process.stdout.write(
      one === undefined
        ? `The fence is raised; its number is ${number}. Clients are notified and upload new keys.\n`
        : `The keys of device ${one.deviceId} of ${one.userId} are withdrawn. The device will upload new ones.\n`,
    )
  })
}

function adoptCommand(): Command {
  const command = new Command('adopt')
    .description('Accept the current state of a database after a deliberate restore or move.')
    .addHelpText('after', ADOPT_HELP)
  return addConfigOptions(command, FLAGS).action(async () => {
    const { config } = configOf(command)
    const { fence } = fenceOptions(config)
    if (fence === undefined) throw new UsageError('The fence is off, so there are no witnesses to set.')
    const adopted = usesPostgres(config)
      ? await adoptPostgresFence(postgresConnection(config), fence)
      : await adoptFence(config.dataDir, fence)
    process.stdout.write(describeAdopted(adopted, fence))
    if (adopted.some((witness) => !witness.adopted)) process.exitCode = 1
  })
}

/** @throws {UsageError} if only one of the two is given, or the user ID is invalid. */
function deviceOf(
  user: string | undefined,
  device: string | undefined,
): { readonly userId: UserId; readonly deviceId: DeviceId } | undefined {
  if (user === undefined && device === undefined) return undefined
  if (user === undefined || device === undefined) throw new UsageError('Expected both --user and --device.')
  if (parseUserId(user) === undefined)
    throw new UsageError(`--user: expected @name:server, not ${quoted(user)}.`)
  return { userId: user as UserId, deviceId: device as DeviceId }
}

function describeStatus(
  { epoch, number, position, raised, witnesses }: FenceStatus,
  fence: WitnessPlaces | undefined,
): string {
  const lines = [
    number === 0
      ? 'The fence was never raised.'
      : `The fence was raised ${number === 1 ? 'once' : `${number} times`}.`,
    `Epoch ${epoch}, position ${position}.`,
    ...raised.map(
      ({ epoch: ended, endedTs, reason, endPosition }) =>
        `  ${new Date(endedTs).toISOString()}  epoch ${ended} ended at ${endPosition}: ${reason}`,
    ),
    witnesses.length === 0 ? `There is no witness of this database${placesOf(fence)}.` : 'Witnesses:',
    ...witnesses.map(
      ({ file, judgement, isCopy }) =>
        `  ${file}: ${describeJudgement(judgement)}${isCopy ? '; but this file was copied or restored, so it proves nothing' : ''}`,
    ),
  ]
  return `${lines.join('\n')}\n`
}

function describeJudgement(judgement: Judgement): string {
  switch (judgement.kind) {
    case 'holds':
      return 'the database has all acknowledged writes'
    case 'fenced':
      return 'the database was rolled back, and the fence was raised since'
    case 'behind':
      return `the database was rolled back: write ${judgement.acknowledged} was acknowledged, the database has ${judgement.found}`
  }
}

function placesOf(fence: WitnessPlaces | undefined): string {
  if (fence === undefined) return ': the fence is off'
  const { directory, searched } = fence
  return ` in ${searched.length === 0 ? directory : searched.join(', ')}`
}

function describeAdopted(adopted: readonly AdoptedWitness[], fence: WitnessPlaces): string {
  if (adopted.length === 0) return `There is no witness of this database${placesOf(fence)}.\n`
  return adopted
    .map((witness) =>
      witness.adopted
        ? `${witness.file} is set to the state of the database.\n`
        : `${witness.file} is in use by a server: stop it first.\n`,
    )
    .join('')
}
