/** Accounts, for one operation of a command: beside a running server too. */
import type { Config } from '../config/config.ts'
import { type AccountsBeside, openAccountsBeside } from '../store/sqlite/index.ts'

export async function withAccounts<T>(
  config: Config,
  run: (accounts: AccountsBeside, serverName: string) => Promise<T>,
): Promise<T> {
  const accounts = openAccountsBeside(config.dataDir)
  try {
    return await run(accounts, await accounts.claimServerName(config.serverName))
  } finally {
    await accounts.close()
  }
}
