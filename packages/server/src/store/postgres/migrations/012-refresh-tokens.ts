/** Access tokens that expire, and their refresh tokens (accounts/refresh-tokens.ts). */
export const refreshTokens = `
alter table access_tokens add column expires_ts bigint;
alter table access_tokens add column refresh_hash text collate "C";
alter table access_tokens add column replaces_hash text collate "C";
create unique index access_tokens_by_refresh on access_tokens (refresh_hash);
`
