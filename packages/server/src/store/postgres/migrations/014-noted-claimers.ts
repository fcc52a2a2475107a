/**
 * When a claimer was last noted, within a day: names without a kept record are deleted (pool/claimer-names.ts). The
 * default is the present time, for the names that exist and those that a process of the previous version adds.
 */
export const notedClaimers = `
alter table claimers add column noted_ts bigint not null default (extract(epoch from now()) * 1000)::bigint;
create index claimers_by_noted_ts on claimers (noted_ts);
`
