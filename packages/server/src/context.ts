/** Dependencies of request handlers. Built once, in main.ts; tests pass their own clock and configuration. */
import type { FastifyBaseLogger } from 'fastify'
import type { TokenBuckets } from './lib/token-bucket.ts'
import type { Config } from './config/config.ts'
import type { InteractiveAuth } from './accounts/interactive-auth.ts'
import type { HashNetwork } from './accounts/known-networks.ts'
import type { LoginLimits } from './accounts/login-limits.ts'
import type { NetworkBuckets } from './lib/network-buckets.ts'
import type { Passwords } from './accounts/passwords.ts'
import type { SendBudgets } from './messages/send-budget.ts'
import type { Metrics } from './observe/metrics.ts'
import type { SecurityLog } from './observe/security-log.ts'
import type { KeyPools } from './pool/key-pools.ts'
import type { LimitedClaims } from './pool/limited-claims.ts'
import type { AnswersInFlight } from './http/answers-in-flight.ts'
import type { Store } from './store.ts'
import type { SyncWaiters } from './sync/waiters.ts'

/** Rate limiters; each undefined if limits are off. */
export type Limiters = {
  /** Requests for the flows, for a free name and for an account. */
  readonly registerRequestPerAddress?: NetworkBuckets
  readonly registrationPerAddress?: NetworkBuckets
  /** In units of http/costs.ts. */
  readonly workPerUser?: TokenBuckets
  readonly workPerAddress?: TokenBuckets
}

export type Context = {
  readonly config: Config
  readonly serverName: string
  readonly store: Store
  readonly limiters: Limiters
  /** Undefined if limits are off. */
  readonly loginLimits?: LoginLimits
  readonly hashNetwork: HashNetwork
  readonly sendBudgets?: SendBudgets
  readonly pools: Pick<KeyPools, keyof KeyPools>
  readonly limitedClaims: LimitedClaims
  readonly passwords: Passwords
  readonly interactiveAuth: InteractiveAuth
  readonly waiters: SyncWaiters
  readonly answers: AnswersInFlight
  /** Undefined if metrics are off. */
  readonly metrics?: Metrics
  readonly log: FastifyBaseLogger
  readonly securityLog: SecurityLog
  /** Milliseconds since 1970. */
  readonly now: () => number
}
