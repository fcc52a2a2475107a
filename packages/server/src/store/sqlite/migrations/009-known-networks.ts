/** The networks from which accounts have logged in (accounts/known-networks.ts), as keyed hashes. */
export const knownNetworks = `
create table known_networks (
  user_num integer not null,
  network_hash text not null,
  seen_ts integer not null,
  primary key (user_num, network_hash)
) strict, without rowid;
create index known_networks_by_hash on known_networks (network_hash);
create index known_networks_by_ts on known_networks (seen_ts);
`
