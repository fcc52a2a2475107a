/** Opens the account store for one operation of a command, in either store; the server may be running. */
import { type Config, postgresOptions, usesPostgres } from '../config/config.ts'
import { openPostgresAccounts } from '../store/postgres/index.ts'
import { type AccountsBeside, openAccountsBeside } from '../store/sqlite/index.ts'

export async function withAccounts<T>(
  config: Config,
  run: (accounts: AccountsBeside, serverName: string) => Promise<T>,
): Promise<T> {
  const accounts = usesPostgres(config)
    ? await openPostgresAccounts({ ...postgresOptions(config), now: Date.now })
    : openAccountsBeside(config.dataDir)
  try {
    return await run(accounts, await accounts.claimServerName(config.serverName))
  } finally {
    await accounts.close()
  }
}
