/** When a claimer was last noted, within a day: names without a kept record are deleted (pool/claimer-names.ts). */
export const notedClaimers = `
alter table claimers add column noted_ts integer not null default 0;
update claimers set noted_ts = unixepoch() * 1000;
create index claimers_by_noted_ts on claimers (noted_ts);
`
