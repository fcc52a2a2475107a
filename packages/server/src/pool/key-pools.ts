/**
 * The key pools as endpoints use them: each method is one use case over the store, with what the decision must not do
 * itself: Ed25519 checks and the rate limit of resets.
 */
import type { TokenBuckets } from '../lib/token-bucket.ts'
import type { MatrixError } from '../matrix-error.ts'
import { LRUCache } from 'lru-cache'
import type { DeviceRef, Session } from '../session.ts'
import type {
  ClaimCommand,
  ClaimResult,
  PoolInspection,
  ResetCommand,
  ResetResult,
  UploadCommand,
  UploadResult,
} from './commands.ts'
import type { Identity } from './identity.ts'
import type { PoolPolicy } from './policy.ts'
import type { Decide, Decision, PoolStore, WantedFacts } from './port.ts'
import { decideReset, factsForReset } from './reset.ts'
import { requireSignedDeviceKeys, SignatureChecks } from './signed-keys.ts'
import { decideUpload, factsForUpload } from './upload.ts'

export type KeyPoolsOptions = {
  readonly policy: PoolPolicy
  /** The rate limit of resets per device; without it they are not limited. */
  readonly resetsPerDevice?: TokenBuckets
}

export class KeyPools {
  readonly #store: PoolStore
  readonly #policy: PoolPolicy
  readonly #resetsPerDevice: TokenBuckets | undefined
  /** The identities that decisions needed signatures by: checked ahead next time, which saves a transaction. */
  readonly #identities = new LRUCache<DeviceRef, Identity>({ max: MAX_IDENTITIES })

  constructor(store: PoolStore, { policy, resetsPerDevice }: KeyPoolsOptions) {
    this.#store = store
    this.#policy = policy
    this.#resetsPerDevice = resetsPerDevice
  }

  /**
   * Stores an upload: device keys, one-time keys and fallback keys together or not at all.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile, 400 for conflicts, refused identities and signatures,
   *   429 over the daily budget. Nothing is stored then.
   */
  async upload(command: UploadCommand): Promise<UploadResult> {
    const { session, deviceKeys, oneTimeKeys, fallbackKeys } = command
    const signatures = new SignatureChecks([...oneTimeKeys, ...fallbackKeys], session)
    if (deviceKeys !== undefined && this.#policy.verifySignatures) {
      requireSignedDeviceKeys(deviceKeys, session)
      await signatures.check(deviceKeys.identity)
    }
    await this.#checkAhead(session, signatures)
    const wanted = factsForUpload(command, this.#policy)
    return answerOf(
      await this.#change(
        session,
        wanted,
        decideUpload(command, wanted, this.#policy, signatures),
        signatures,
      ),
    )
  }

  /** Issues at most one key per target. */
  claim(command: ClaimCommand): Promise<ClaimResult> {
    return this.#store.claim(command)
  }

  /**
   * MSC4162 with its optional fields. The rate limit is charged before the transaction and refunded when nothing was
   * decided, or when the answer is a replay: once per request, however often its transaction runs.
   *
   * @throws {MatrixError} 409 when a precondition does not hold, 429 over the rate limit, else as `upload`.
   */
  async reset(command: ResetCommand): Promise<ResetResult> {
    const { session, oneTimeKeys, fallbackKeys, now } = command
    const signatures = new SignatureChecks([...oneTimeKeys, ...fallbackKeys], session)
    const device = String(session.deviceRef)
    const waitMs = this.#resetsPerDevice?.take(device, now) ?? 0
    if (waitMs === 0) await this.#checkAhead(session, signatures)
    const wanted = factsForReset(command, this.#policy, waitMs)
    let charged = false
    try {
      const decide = decideReset(command, wanted, this.#policy, signatures, waitMs)
      const decision = await this.#change(session, wanted, decide, signatures)
      charged = decision.kind !== 'answer' || !decision.answer.replayed
      return answerOf(decision).result
    } finally {
      if (!charged && waitMs === 0) this.#resetsPerDevice?.refund(device)
    }
  }

  /**
   * A device's own pools.
   *
   * @throws {MatrixError} 401 when the session ended meanwhile.
   */
  inspect(
    session: Session,
    page: { readonly limit: number; readonly from?: string },
  ): Promise<PoolInspection> {
    return this.#store.inspect(session, page)
  }

  async #checkAhead({ deviceRef }: Session, signatures: SignatureChecks): Promise<void> {
    const identity = this.#identities.get(deviceRef)
    if (identity !== undefined) await signatures.check(identity)
  }

  /** Changes pools; checks signatures when the decision needs them. */
  async #change<Answer>(
    session: Session,
    wanted: WantedFacts,
    decide: Decide<Answer>,
    signatures: SignatureChecks,
  ): Promise<Settled<Answer>> {
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      const decision = await this.#store.change(session, wanted, decide)
      if (decision.kind !== 'verify') return decision
      this.#identities.set(session.deviceRef, decision.identity)
      await signatures.check(decision.identity)
    }
    throw new Error('the identity of a device changed again and again during one request')
  }
}

/** About 300 bytes each. */
const MAX_IDENTITIES = 10_000

/** Each further attempt means that another request of the device changed its identity meanwhile. */
const MAX_ATTEMPTS = 5

type Settled<Answer> = Exclude<Decision<Answer>, { readonly kind: 'verify' }>

/** @throws {MatrixError} the refusal, if it is one. */
function answerOf<Answer>(decision: Settled<Answer>): Answer {
  if (decision.kind === 'answer') return decision.answer
  const refusal: MatrixError = decision.refusal
  throw refusal
}
