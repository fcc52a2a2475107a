/**
 * Sessions of user-interactive authentication (accounts/auth-session.ts): any process continues one. `sealed` is
 * encrypted with a key that the client has.
 */
export const authSessions = `
create table auth_sessions (
  session_num bigint generated always as identity primary key,
  id_hash text collate "C" not null unique,
  owner_kind text not null,
  owner text collate "C" not null,
  operation text not null,
  is_finished boolean not null default false,
  sealed bytea not null,
  expires_ts bigint not null
);
create index auth_sessions_by_owner on auth_sessions (owner_kind, owner);
create index auth_sessions_by_expiry on auth_sessions (expires_ts);
`
