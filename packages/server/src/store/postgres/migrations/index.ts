/** Append-only: schema N is the first N of these, each in a transaction of its own. */
import { initial } from './001-initial.ts'
import { fence } from './002-fence.ts'
import { compactKeys } from './003-compact-keys.ts'
import { authSessions } from './004-auth-sessions.ts'
import { deactivatedAccounts } from './005-deactivated-accounts.ts'
import { dailyBudgets } from './006-daily-budgets.ts'
import { signaturesBySigner } from './007-signatures-by-signer.ts'
import { knownNetworks } from './008-known-networks.ts'
import { lockedUsers } from './009-locked-users.ts'
import { filledPools } from './010-filled-pools.ts'
import { verifiedStarts } from './011-verified-starts.ts'
import { refreshTokens } from './012-refresh-tokens.ts'
import { inboxSenders } from './013-inbox-senders.ts'
import { notedClaimers } from './014-noted-claimers.ts'

export const migrations: readonly string[] = [
  initial,
  fence,
  compactKeys,
  authSessions,
  deactivatedAccounts,
  dailyBudgets,
  signaturesBySigner,
  knownNetworks,
  lockedUsers,
  filledPools,
  verifiedStarts,
  refreshTokens,
  inboxSenders,
  notedClaimers,
]
