/** The schema's history: append-only, applied in order, the count kept in `pragma user_version`. */
import type { DatabaseSync } from 'node:sqlite'
import { initial } from './001-initial.ts'
import { fence } from './002-fence.ts'
import { conflicts } from './003-conflicts.ts'
import { authSessions } from './004-auth-sessions.ts'
import { deactivatedAccounts } from './005-deactivated-accounts.ts'
import { dailyBudgets } from './006-daily-budgets.ts'
import { transactionRecordOf, transactionRecords } from './007-transaction-records.ts'
import { signaturesBySigner } from './008-signatures-by-signer.ts'
import { knownNetworks } from './009-known-networks.ts'
import { lockedUsers } from './010-locked-users.ts'
import { filledPools } from './011-filled-pools.ts'
import { changedLists } from './012-changed-lists.ts'
import { refreshTokens } from './013-refresh-tokens.ts'
import { inboxSenders } from './014-inbox-senders.ts'
import { notedClaimers } from './015-noted-claimers.ts'

export const migrations: readonly string[] = [
  initial,
  fence,
  conflicts,
  authSessions,
  deactivatedAccounts,
  dailyBudgets,
  transactionRecords,
  signaturesBySigner,
  knownNetworks,
  lockedUsers,
  filledPools,
  changedLists,
  refreshTokens,
  inboxSenders,
  notedClaimers,
]

/** Adds the SQL functions that migrations call. */
export function addMigrationFunctions(db: DatabaseSync): void {
  db.function('transaction_record', { deterministic: true }, transactionRecordOf)
}
