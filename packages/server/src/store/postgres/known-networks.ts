/** The networks of earlier logins (accounts/known-networks.ts). The lock of the user keeps their number. */
import type { UserId } from '@latchkey/protocol'
import { NETWORKS_PER_USER } from '../../accounts/known-networks.ts'
import type { NewSession } from '../../accounts/port.ts'
import type { Queries, Transaction } from './database.ts'

const FORGOTTEN_PER_STEP = 500

export async function noteNetwork(
  tx: Transaction,
  { account: { userRef }, networkHash, now }: NewSession,
): Promise<void> {
  if (networkHash === undefined) return
  await tx.run(
    `insert into known_networks (user_num, network_hash, seen_ts) values ($1, $2, $3)
     on conflict (user_num, network_hash) do update set seen_ts = excluded.seen_ts`,
    userRef,
    networkHash,
    now,
  )
  await tx.run(
    `delete from known_networks where user_num = $1 and network_hash in
       (select network_hash from known_networks where user_num = $1
        order by seen_ts desc, network_hash offset ${NETWORKS_PER_USER})`,
    userRef,
  )
}

export async function knowsNetwork(db: Queries, networkHash: string, userId?: UserId): Promise<boolean> {
  const row = await db.one(
    `select 1 from known_networks
     where network_hash = $1 and ($2::text is null or user_num = (select user_num from users where user_id = $2))
     limit 1`,
    networkHash,
    userId ?? null,
  )
  return row !== undefined
}

export async function forgetNetworks(tx: Transaction, cutoff: number): Promise<void> {
  await tx.run(
    `delete from known_networks where (user_num, network_hash) in
       (select user_num, network_hash from known_networks where seen_ts < $1
        limit ${FORGOTTEN_PER_STEP} for update skip locked)`,
    cutoff,
  )
}
