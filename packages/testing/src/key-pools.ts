/** The key pools over a store, as the server has them over its own. */
import { KeyPools } from '../../server/src/pool/key-pools.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../server/src/pool/policy.ts'
import type { PoolStore } from '../../server/src/pool/port.ts'

/** Without a rate limit of resets. */
export function keyPools(
  { pools }: { readonly pools: PoolStore },
  policy: PoolPolicy = DEFAULT_POOL_POLICY,
): KeyPools {
  return new KeyPools(pools, { policy })
}
