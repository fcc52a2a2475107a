/**
 * The rollback fence (key-pool.md "Rollback fence"): the counters of writers, the former epochs with their ends,
 * and the fence under which each device was last used. The numbers of the fence itself are in `meta`.
 */
export const fence = `
alter table devices add column fence integer not null default 0;

create table writers (
  writer_id text not null,
  lane integer not null,
  n integer not null default 0,
  ts integer not null default 0,
  primary key (writer_id, lane)
) strict, without rowid;

create table former_epochs (
  epoch text primary key,
  end_pos integer not null,
  ended_ts integer not null,
  reason text not null
) strict, without rowid;
`
