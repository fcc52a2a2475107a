/**
 * Sessions of requests, looked up in batches. They are not cached, because another process may end them. A look-up
 * begins after its request arrived, so a token has no effect after its end was acknowledged.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { Batches } from './batches.ts'
import type { Queries } from './database.ts'

/** Undefined for a token that has ended or never existed. */
export type SessionLookUps = Batches<TokenHash, Session | undefined>

/** With two at a time, a batch does not wait for the answer to the previous one, and batches are still large enough. */
const AT_ONCE = 2
const MAX_TOKENS = 500
/** A connection that hangs must not stop all requests. */
const SLOW_MS = 100

export function sessionLookUps(db: Queries): SessionLookUps {
  return new Batches({
    atOnce: AT_ONCE,
    maxSize: MAX_TOKENS,
    slowMs: SLOW_MS,
    async run(tokenHashes) {
      const sessions = await findSessions(db, tokenHashes)
      return { outcomes: tokenHashes.map((hash) => ({ status: 'fulfilled', value: sessions.get(hash) })) }
    },
  })
}

async function findSessions(
  db: Queries,
  tokenHashes: readonly TokenHash[],
): Promise<ReadonlyMap<TokenHash, Session>> {
  const rows = await db.all<{
    token_hash: TokenHash
    user_num: UserRef
    user_id: UserId
    device_num: DeviceRef
    device_id: DeviceId
    expires_ts: number | null
    replaces_hash: TokenHash | null
  }>(
    // `limit 1` keeps the planner from reading whole tables for a batch.
    `select wanted.token_hash, user_num, user_id, device_num, device_id, expires_ts, replaces_hash
     from unnest($1::text[]) as wanted (token_hash) cross join lateral (
       select user_num, user_id, device_num, device_id, expires_ts, replaces_hash
       from access_tokens join devices using (device_num) join users using (user_num)
       where token_hash = wanted.token_hash and removed_ts is null limit 1) as found`,
    tokenHashes,
  )
  return new Map(
    rows.map((row) => [
      row.token_hash,
      {
        tokenHash: row.token_hash,
        userRef: row.user_num,
        userId: row.user_id,
        deviceRef: row.device_num,
        deviceId: row.device_id,
        ...(row.expires_ts !== null && { expiresTs: row.expires_ts }),
        ...(row.replaces_hash !== null && { replaces: row.replaces_hash }),
      },
    ]),
  )
}
