/** Accounts, for one operation of a command: beside a running server too, in either store. */
import { type Config, postgresOptions, usesPostgres } from '../config/config.ts'
import { openPostgresStore } from '../store/postgres/index.ts'
import { type AccountsBeside, openAccountsBeside } from '../store/sqlite/index.ts'

export async function withAccounts<T>(
  config: Config,
  run: (accounts: AccountsBeside, serverName: string) => Promise<T>,
): Promise<T> {
  const accounts = await openAccounts(config)
  try {
    return await run(accounts, await accounts.claimServerName(config.serverName))
  } finally {
    await accounts.close()
  }
}

async function openAccounts(config: Config): Promise<AccountsBeside> {
  if (!usesPostgres(config)) return openAccountsBeside(config.dataDir)
  const store = await openPostgresStore({ ...postgresOptions(config), now: Date.now })
  return {
    create: (account) => store.accounts.create(account),
    find: (userId) => store.accounts.find(userId),
    createRegistrationToken: (token) => store.accounts.createRegistrationToken(token),
    claimServerName: (name) => store.claimServerName(name),
    close: () => store.close(),
  }
}
