/**
 * Runs an administration command where the database is: in the server that has the embedded database open, else in
 * this process. PostgreSQL serves any number of processes, so a command uses it directly, and servers notice.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { Passwords } from '../accounts/passwords.ts'
import {
  type AdminCommandName,
  type AdminInput,
  type AdminOutput,
  runAdminCommand,
} from '../admin/commands.ts'
import {
  type Config,
  fenceOptions,
  hashCost,
  postgresOptions,
  storeOptions,
  usesPostgres,
} from '../config/config.ts'
import { GENERAL_KEYS } from '../config/keys.ts'
import { callServer } from '../control/control-client.ts'
import { reportFence } from '../observe/report-fence.ts'
import { openSecurityLog } from '../observe/security-log.ts'
import type { Store } from '../store.ts'
import { openPostgresStore } from '../store/postgres/index.ts'
import { openSqliteStore } from '../store/sqlite/index.ts'
import { UsageError } from './describe-failure.ts'

export type AdminOptions = {
  /** Creates an empty database if there is none. */
  readonly create?: boolean
}

/** @throws {UsageError} if there is no database; what the command throws */
export async function runAdmin<Name extends AdminCommandName>(
  config: Config,
  name: Name,
  input: AdminInput<Name>,
  { create = false }: AdminOptions = {},
): Promise<AdminOutput<Name>> {
  const answered = usesPostgres(config) ? undefined : await callServer(config.dataDir, name, input)
  if (answered !== undefined) return answered.output as AdminOutput<Name>
  if (!create) requireDatabase(config)
  return (await runHere(config, name, input, create)) as AdminOutput<Name>
}

/** The database of a configuration in messages, without a password. */
export function databaseName(config: Config): string {
  return usesPostgres(config) ? GENERAL_KEYS.database.kind.format(config.database) : config.dataDir
}

function requireDatabase(config: Config): void {
  if (usesPostgres(config) || existsSync(join(config.dataDir, 'latchkey.db'))) return
  throw new UsageError(
    `There is no database in ${config.dataDir}. Name the server's directory with --data (or its PostgreSQL ` +
      'database with --database), or create a new database with --create.',
  )
}

async function runHere(config: Config, name: string, input: object, create: boolean): Promise<unknown> {
  const store = await openStore(config, create)
  const security = openSecurityLog(isFile(config.securityLog) ? config.securityLog : 'off', {
    now: Date.now,
    onFailure: (error) => process.stderr.write(`The security log cannot be written: ${String(error)}\n`),
  })
  try {
    const serverName = await store.claimServerName(config.serverName)
    const { passwordMinLength } = config
    const { accounts, devices, admin } = store
    const deps = {
      accounts,
      devices,
      admin,
      passwords: new Passwords(hashCost(config)),
      serverName,
      passwordMinLength,
      now: Date.now,
    }
    const { output, changed } = await runAdminCommand(deps, name, input)
    if (changed !== undefined) security.log.note('admin_command', {}, { command: name, target: changed })
    return output
  } finally {
    security.close()
    await store.close()
  }
}

/** The log of the operator's terminal is not the security log; a file is. */
function isFile(place: string): boolean {
  return place !== 'on' && place !== 'off'
}

function openStore(config: Config, create: boolean): Promise<Store> {
  const onFence = reportFence(pino({ level: config.logLevel }, process.stderr), undefined)
  return usesPostgres(config)
    ? openPostgresStore({ ...postgresOptions(config), connections: 1, create, now: Date.now })
    : openSqliteStore({ ...storeOptions(config), ...fenceOptions(config), onFence, now: Date.now })
}
