/**
 * `/keys/upload`: device keys, one-time keys and fallback keys of one request, together or not at all (key-pool.md
 * "Upload"). Rules in this order:
 *
 *     identity (identity.ts) -> signatures (signed-keys.ts) -> the keys (enter-keys.ts)
 */
import { hashed } from './key.ts'
import type { UploadCommand, UploadResult } from './commands.ts'
import { decided } from './decision.ts'
import { DevicePools } from './device-pools.ts'
import { enterKeys } from './enter-keys.ts'
import { compareIdentity, givenUpBy } from './identity.ts'
import type { PoolPolicy } from './policy.ts'
import type { Decide, DeviceChanges, WantedFacts } from './port.ts'
import { IDENTITY_PURGE } from './purge.ts'
import type { SignatureChecks } from './signed-keys.ts'

/** The facts that an upload may meet. */
export function factsForUpload(command: UploadCommand, { keysPerPool }: PoolPolicy): WantedFacts {
  const { oneTimeKeys, fallbackKeys, deviceKeys } = command
  return {
    oneTimeKeys: hashed(oneTimeKeys),
    fallbackKeys: hashed(fallbackKeys),
    ...(deviceKeys && { deviceKeys }),
    available: [],
    keysPerPool,
  }
}

/** The decision about an upload. */
export function decideUpload(
  command: UploadCommand,
  { oneTimeKeys, fallbackKeys }: WantedFacts,
  policy: PoolPolicy,
  signatures: SignatureChecks,
): Decide<UploadResult> {
  return (facts) =>
    decided(() => {
      const pools = new DevicePools(facts)
      const isNew = command.deviceKeys !== undefined && command.deviceKeys.json !== facts.deviceKeys
      const deviceKeys = isNew ? command.deviceKeys : undefined
      const identity = deviceKeys?.identity ?? facts.identity
      const identityChanged =
        deviceKeys !== undefined && compareIdentity(facts.identity, identity, facts.givenUp) === 'changed'
      if (identityChanged) pools.purge(IDENTITY_PURGE)
      if (policy.verifySignatures || facts.identityChanged || identityChanged) {
        const missing = signatures.require(identity)
        if (missing !== undefined) return missing
      }
      const { now } = command
      const entered = enterKeys(
        pools,
        {
          oneTimeKeys,
          fallbackKeys,
          now,
          mayHeal: policy.onConflict === 'heal',
          alreadyCounted: identityChanged ? 1 : 0,
        },
        facts,
        policy,
      )
      const { outcomes, fallbackOutcomes, storedAs, evicted, healed, counts } = entered
      const left = identityChanged || healed || evicted.length > 0
      const changed = pools.changes({ left, signal: identityChanged || healed, now })
      const changes: DeviceChanges = {
        countsAcknowledged: true,
        ...(changed && { pools: changed }),
        ...(counts !== facts.counts && { counts }),
        ...(deviceKeys && { deviceKeys }),
        ...(identityChanged && { givenUp: givenUpBy(facts.identity, identity) }),
        ...(healed && { refused: 'forget' }),
      }
      const purged = purgeCause(identityChanged, healed)
      const status = pools.status({ left })
      const answer = { outcomes, fallbackOutcomes, storedAs, evicted, ...(purged && { purged }), status }
      return { kind: 'answer', answer, changes }
    })
}

function purgeCause(identityChanged: boolean, healed: boolean): UploadResult['purged'] {
  if (identityChanged) return 'identity_changed'
  return healed ? 'conflict_healed' : undefined
}
