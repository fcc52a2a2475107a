/** Access tokens that expire, and their refresh tokens (accounts/refresh-tokens.ts). */
export const refreshTokens = `
alter table access_tokens add column expires_ts integer;
alter table access_tokens add column refresh_hash text;
alter table access_tokens add column replaces_hash text;
create unique index access_tokens_by_refresh on access_tokens (refresh_hash);
`
