/** The store, for one operation of a command: beside a running server too. */
import { type Config, storeOptions } from '../config/config.ts'
import type { Store } from '../store.ts'
import { openSqliteStore } from '../store/sqlite/index.ts'

export async function withStore<T>(
  config: Config,
  run: (store: Store, serverName: string) => Promise<T>,
): Promise<T> {
  const store = openSqliteStore({ ...storeOptions(config), now: Date.now, exclusive: false })
  try {
    return await run(store, store.claimServerName(config.serverName))
  } finally {
    store.close()
  }
}
