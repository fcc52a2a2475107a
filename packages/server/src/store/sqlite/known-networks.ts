/** The networks of earlier logins (accounts/known-networks.ts). */
import type { UserId } from '@latchkey/protocol'
import { NETWORKS_PER_USER } from '../../accounts/known-networks.ts'
import type { NewSession } from '../../accounts/port.ts'
import type { Reader, Transaction } from './database.ts'

const FORGOTTEN_PER_STEP = 500

export function noteNetwork(tx: Transaction, { account: { userRef }, networkHash, now }: NewSession): void {
  if (networkHash === undefined) return
  tx.run(
    `insert into known_networks (user_num, network_hash, seen_ts) values (?1, ?2, ?3)
     on conflict do update set seen_ts = ?3`,
    userRef,
    networkHash,
    now,
  )
  tx.run(
    `delete from known_networks where user_num = ?1 and network_hash in
       (select network_hash from known_networks where user_num = ?1
        order by seen_ts desc, network_hash limit -1 offset ${NETWORKS_PER_USER})`,
    userRef,
  )
}

export function knowsNetwork(db: Reader, networkHash: string, userId?: UserId): boolean {
  const row = db.one(
    `select 1 from known_networks
     where network_hash = ?1 and (?2 is null or user_num = (select user_num from users where user_id = ?2)) limit 1`,
    networkHash,
    userId ?? null,
  )
  return row !== undefined
}

export function forgetNetworks(tx: Transaction, cutoff: number): void {
  tx.run(
    `delete from known_networks where (user_num, network_hash) in
       (select user_num, network_hash from known_networks where seen_ts < ? limit ${FORGOTTEN_PER_STEP})`,
    cutoff,
  )
}
