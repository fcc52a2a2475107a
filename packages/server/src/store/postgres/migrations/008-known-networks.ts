/** The networks from which accounts have logged in (accounts/known-networks.ts), as keyed hashes. */
export const knownNetworks = `
create table known_networks (
  user_num bigint not null,
  network_hash text collate "C" not null,
  seen_ts bigint not null,
  primary key (user_num, network_hash)
);
create index known_networks_by_hash on known_networks (network_hash);
create index known_networks_by_ts on known_networks (seen_ts);
`
