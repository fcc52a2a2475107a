/**
 * The first schema. Shape and why: docs/development/storage.md. Times are milliseconds since 1970; `*_num` are handles
 * of this database; `pos` are stream positions; `state` is key-row.ts's code.
 */
export const initial = `
create table meta (key text primary key, value any not null) strict, without rowid;

create table users (
  user_num integer primary key,
  user_id text not null unique,
  password_hash text not null,
  created_ts integer not null,
  list_pos integer not null default 0
) strict;

create table registration_tokens (
  token_hash text primary key,
  uses_allowed integer,
  uses integer not null default 0,
  expires_ts integer,
  created_ts integer not null
) strict, without rowid;

create table devices (
  device_num integer primary key autoincrement,
  user_num integer not null,
  device_id text not null,
  display_name text,
  created_ts integer not null,
  last_seen_ts integer,
  last_seen_ip text,
  removed_ts integer,
  device_keys text,
  ed25519 text,
  curve25519 text,
  identity_changed integer not null default 0,
  version integer not null default 0,
  generation integer not null default 0,
  signal_pos integer not null default 0,
  day_start_ts integer not null default 0,
  day_stored integer not null default 0,
  unique (user_num, device_id)
) strict;
-- Not a partial index: with one, SQLite prepares every statement on this table again at each binding.
create index devices_removed on devices (removed_ts);

create table former_identities (
  device_num integer not null,
  ed25519 text,
  curve25519 text
) strict;
create index former_identities_by_ed25519 on former_identities (device_num, ed25519);
create index former_identities_by_curve25519 on former_identities (device_num, curve25519);

create table access_tokens (
  token_hash text primary key,
  device_num integer not null,
  created_ts integer not null
) strict, without rowid;
create index access_tokens_by_device on access_tokens (device_num);

create table pools (
  pool_num integer primary key autoincrement,
  device_num integer not null,
  algorithm text not null,
  first_num integer not null default 0,
  count integer not null default 0,
  digest blob not null,
  changes integer not null default 0,
  told integer not null default 0,
  fallback_key_id text,
  fallback_json text,
  fallback_material text,
  fallback_used integer not null default 0,
  fallback_issue_count integer not null default 0,
  fallback_first_issued_ts integer,
  fallback_uploaded_ts integer,
  unique (device_num, algorithm)
) strict;

create table one_time_keys (
  num integer primary key,
  pool_num integer not null,
  key_id text not null,
  material blob not null,
  json text,
  uploaded_ts integer not null,
  state integer not null default 0,
  left_ts integer,
  claimer_num integer
) strict;
create index one_time_keys_by_state on one_time_keys (pool_num, state);
create index one_time_keys_by_material on one_time_keys (pool_num, material);
create index one_time_keys_by_id on one_time_keys (pool_num, key_id);

create table former_fallback_keys (
  pool_num integer not null,
  material blob not null,
  key_id text not null,
  uploaded_ts integer not null,
  left_ts integer not null,
  state integer not null,
  issue_count integer not null,
  first_issued_ts integer,
  primary key (pool_num, material)
) strict, without rowid;

create table fallback_issues (
  pool_num integer not null,
  material blob not null,
  claimer_num integer not null,
  count integer not null,
  first_ts integer not null,
  last_ts integer not null,
  primary key (pool_num, material, claimer_num)
) strict, without rowid;

create index fallback_issues_by_ts on fallback_issues (last_ts);

create table issue_log (
  n integer primary key,
  pool_num integer not null,
  key_num integer,
  ts integer not null,
  claimer_num integer not null
) strict;

create table claimers (claimer_num integer primary key, name text not null unique) strict;

create table reset_answers (
  device_num integer not null,
  request_id text not null,
  ts integer not null,
  answer text not null,
  primary key (device_num, request_id)
) strict, without rowid;

create table inbox (
  device_num integer not null,
  pos integer not null,
  event text not null,
  primary key (device_num, pos)
) strict, without rowid;

create table sent_transactions (
  device_num integer not null,
  transaction_id text not null,
  ts integer not null,
  primary key (device_num, transaction_id)
) strict, without rowid;
create index sent_transactions_by_ts on sent_transactions (ts);

create table tracked_users (
  observer_num integer not null,
  target_num integer not null,
  pos integer not null default 0,
  primary key (observer_num, target_num)
) strict, without rowid;
create index tracked_users_by_target on tracked_users (target_num, observer_num);

create table awaited_users (
  awaited_num integer primary key,
  user_id text not null,
  observer_num integer not null,
  unique (user_id, observer_num)
) strict;
create index awaited_users_by_observer on awaited_users (observer_num);

create table cross_signing_keys (
  user_num integer not null,
  usage text not null,
  public_key text not null,
  json text not null,
  primary key (user_num, usage)
) strict, without rowid;

create table key_signatures (
  user_num integer not null,
  key_id text not null,
  signer_num integer not null,
  signer_key_id text not null,
  signature text not null,
  primary key (user_num, key_id, signer_num, signer_key_id)
) strict, without rowid;

create table filters (
  user_num integer not null,
  filter_id integer not null,
  json text not null,
  primary key (user_num, filter_id)
) strict, without rowid;

create table account_data (
  user_num integer not null,
  type text not null,
  content text not null,
  pos integer not null,
  primary key (user_num, type)
) strict, without rowid;
`
