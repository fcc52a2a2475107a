/**
 * Sessions of user-interactive authentication (accounts/auth-session.ts): any process, also after a restart, continues
 * one. `sealed` is encrypted with a key that the client has.
 */
export const authSessions = `
create table auth_sessions (
  session_num integer primary key autoincrement,
  id_hash text not null unique,
  owner_kind text not null,
  owner text not null,
  operation text not null,
  is_finished integer not null default 0,
  sealed blob not null,
  expires_ts integer not null
) strict;
create index auth_sessions_by_owner on auth_sessions (owner_kind, owner);
create index auth_sessions_by_expiry on auth_sessions (expires_ts);
`
