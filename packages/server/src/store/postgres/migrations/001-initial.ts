/**
 * The first schema on PostgreSQL. Shape and why: docs/development/storage.md. As in the embedded store, times are
 * milliseconds since 1970, `*_num` are handles of this database, `pos` are stream positions, `state` is key-row.ts's
 * code.
 *
 * A pool is a log: `head` is the place of its first key that has not been issued. In upload order a claim moves `head`
 * and writes one short row of `issues`; the key's own row, which is large, is not touched. `fillfactor` leaves room for
 * the rows that change all the time to change within their page.
 */
export const initial = `
create table meta (key text primary key, value text not null);

create table stream (one boolean primary key default true check (one), epoch text not null, fence bigint not null default 0, pos bigint not null default 0)
  with (fillfactor = 50);

create table users (
  user_num bigint generated always as identity primary key,
  user_id text collate "C" not null unique,
  password_hash text not null,
  created_ts bigint not null,
  list_pos bigint not null default 0
) with (fillfactor = 80);

create index users_by_list_pos on users (list_pos);

create table registration_tokens (
  token_hash text collate "C" primary key,
  uses_allowed integer,
  uses integer not null default 0,
  expires_ts bigint,
  created_ts bigint not null
);

create table devices (
  device_num bigint generated always as identity primary key,
  user_num bigint not null,
  device_id text collate "C" not null,
  display_name text,
  created_ts bigint not null,
  last_seen_ts bigint,
  last_seen_ip text,
  removed_ts bigint,
  device_keys text,
  ed25519 text,
  curve25519 text,
  identity_changed boolean not null default false,
  version bigint not null default 0,
  generation bigint not null default 0,
  signal_pos bigint not null default 0,
  fence bigint not null,
  day_start_ts bigint not null default 0,
  day_stored integer not null default 0,
  unique (user_num, device_id)
) with (fillfactor = 70);
create index devices_removed on devices (removed_ts) where removed_ts is not null;

create table former_identities (device_num bigint not null, ed25519 text, curve25519 text);
create index former_identities_by_device on former_identities (device_num);

create table access_tokens (
  token_hash text collate "C" primary key,
  device_num bigint not null,
  created_ts bigint not null
);
create index access_tokens_by_device on access_tokens (device_num);

create table pools (
  pool_num bigint generated always as identity primary key,
  device_num bigint not null,
  algorithm text collate "C" not null,
  head bigint not null default 1,
  last_seq bigint not null default 0,
  first_seq bigint not null default 1,
  count integer not null default 0,
  changes bigint not null default 0,
  told integer not null default 0,
  signal_pos bigint not null default 0,
  fallback_key_id text collate "C",
  fallback_json text,
  fallback_material text,
  fallback_used boolean not null default false,
  fallback_issue_count bigint not null default 0,
  fallback_first_issued_ts bigint,
  fallback_uploaded_ts bigint,
  unique (device_num, algorithm)
) with (fillfactor = 50);

create table one_time_keys (
  pool_num bigint not null,
  seq bigint not null,
  uploaded_ts bigint not null,
  state smallint not null default 0,
  key_id text collate "C" not null,
  material bytea not null,
  json text,
  left_ts bigint,
  primary key (pool_num, seq)
);
create index one_time_keys_by_material on one_time_keys (pool_num, material);

create table issues (
  pool_num bigint not null,
  seq bigint not null,
  ts bigint not null,
  claimer_num bigint not null,
  primary key (pool_num, seq)
);

create table former_fallback_keys (
  pool_num bigint not null,
  material bytea not null,
  key_id text collate "C" not null,
  uploaded_ts bigint not null,
  left_ts bigint not null,
  state smallint not null,
  issue_count bigint not null,
  first_issued_ts bigint,
  primary key (pool_num, material)
);

create table fallback_issues (
  pool_num bigint not null,
  material bytea not null,
  claimer_num bigint not null,
  count bigint not null,
  first_ts bigint not null,
  last_ts bigint not null,
  primary key (pool_num, material, claimer_num)
);
create index fallback_issues_by_ts on fallback_issues (last_ts);

create table claimers (claimer_num bigint generated always as identity primary key, name text collate "C" not null unique);

create table conflicts (
  device_num bigint primary key,
  materials text not null,
  ts bigint not null
);

create table reset_answers (
  device_num bigint not null,
  request_id text collate "C" not null,
  ts bigint not null,
  answer text not null,
  primary key (device_num, request_id)
);
create index reset_answers_by_ts on reset_answers (ts);

create table inbox (
  device_num bigint not null,
  pos bigint not null,
  event text not null,
  length integer not null,
  primary key (device_num, pos)
);

create table sent_transactions (
  device_num bigint not null,
  transaction_id text collate "C" not null,
  ts bigint not null,
  primary key (device_num, transaction_id)
);
create index sent_transactions_by_ts on sent_transactions (ts);

create table tracked_users (
  observer_num bigint not null,
  target_num bigint not null,
  pos bigint not null default 0,
  primary key (observer_num, target_num)
);
create index tracked_users_by_target on tracked_users (target_num, observer_num);
create index tracked_users_by_pos on tracked_users (observer_num, pos) where pos > 0;

create table awaited_users (
  awaited_num bigint generated always as identity primary key,
  user_id text collate "C" not null,
  observer_num bigint not null,
  unique (user_id, observer_num)
);
create index awaited_users_by_observer on awaited_users (observer_num);

create table cross_signing_keys (
  user_num bigint not null,
  usage text not null,
  public_key text not null,
  json text not null,
  primary key (user_num, usage)
);

create table key_signatures (
  user_num bigint not null,
  key_id text collate "C" not null,
  signer_num bigint not null,
  signer_key_id text collate "C" not null,
  signature text not null,
  primary key (user_num, key_id, signer_num, signer_key_id)
);

create table filters (user_num bigint not null, filter_id bigint not null, json text not null, primary key (user_num, filter_id));

create table account_data (
  user_num bigint not null,
  type text collate "C" not null,
  content text not null,
  pos bigint not null,
  primary key (user_num, type)
);

-- Wakes of the last minutes, for processes that missed the notification.
create table wakes (pos bigint primary key, ts bigint not null, devices bigint[] not null, users bigint[] not null);

-- The rollback fence: one row for each connection of each process that writes, counted up in every write transaction.
create table writers (
  writer_id text collate "C" not null,
  lane integer not null,
  n bigint not null default 0,
  primary key (writer_id, lane)
) with (fillfactor = 50);
`
