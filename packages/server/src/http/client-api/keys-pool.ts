/** GET dev.latchkey/keys/pool: the calling device's own pools, for detecting drift (extensions.md). */
import { POOL_PATH } from '@latchkey/protocol'
import { invalidParam } from '../../matrix-error.ts'
import type { InspectedKey } from '../../pool/commands.ts'
import { endpoint } from '../endpoint.ts'

const DEFAULT_LIMIT = 100
const MAX_LIMIT = 1000

export const keysPool = endpoint({
  method: 'GET',
  path: `/_matrix/client/${POOL_PATH}`,
  async handle({ context, session, query }) {
    const limit = decodeLimit(query['limit'])
    const from = query['from']
    const { status, pools, nextBatch } = await context.pools.inspect(session, {
      limit,
      ...(from !== undefined && { from }),
    })
    const algorithms = pools.map((pool) => {
      const algorithmStatus = status.algorithms.find((a) => a.algorithm === pool.algorithm)
      const { fallback } = pool
      return [
        pool.algorithm,
        {
          count: pool.available.length,
          digest: algorithmStatus?.digest,
          available: pool.available.map((key) => ({ ...named(key), uploaded_ts: key.ts })),
          issued: pool.issued.map((key) => ({ ...named(key), issued_ts: key.ts })),
          ...(fallback && {
            fallback: {
              key_id: fallback.keyId,
              key_hash: fallback.keyHash,
              used: fallback.used,
              issue_count: fallback.issueCount,
            },
          }),
        },
      ] as const
    })
    return {
      epoch: status.epoch,
      version: status.version,
      generation: status.generation,
      algorithms: Object.fromEntries(algorithms),
      ...(nextBatch !== undefined && { next_batch: nextBatch }),
    }
  },
})

function named(key: InspectedKey): { key_id: string; key_hash: string } {
  return { key_id: key.keyId, key_hash: key.keyHash }
}

function decodeLimit(text: string | undefined): number {
  if (text === undefined) return DEFAULT_LIMIT
  const limit = Number(text)
  if (!Number.isInteger(limit) || limit < 1) throw invalidParam('limit: expected a whole number from 1.')
  return Math.min(limit, MAX_LIMIT)
}
