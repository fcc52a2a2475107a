/**
 * The record of refused uploads (pool/conflict.ts): the repeated upload of a client heals even if the server was
 * restarted in between.
 */
export const conflicts = `
create table conflicts (
  device_num integer primary key,
  materials text not null,
  ts integer not null
) strict;
create index conflicts_by_ts on conflicts (ts);
`
