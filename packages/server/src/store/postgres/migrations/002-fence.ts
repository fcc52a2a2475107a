/**
 * The rollback fence (key-pool.md "Rollback fence"): when each process wrote last, which epochs have ended and where, and
 * from which number of the fence on the fallback keys before it are gone too.
 */
export const fence = `
alter table stream add column fallback_fence bigint not null default 0;

-- When the server was started that this database was first met on, and where the stream stood then: if the database went
-- back, what was written since is not what clients may have seen under the same positions.
alter table stream add column server_start text;
alter table stream add column server_start_pos bigint not null default 0;
alter table stream add column server_start_written_ts bigint;
alter table stream add column server_start_noted timestamptz;

-- Which start of a server each writer has compared its counters on.
create table looks (writer_id text collate "C" primary key, server_start text not null);

alter table writers add column ts bigint not null default 0;

create table former_epochs (
  epoch text collate "C" primary key,
  -- Where it ended: its tokens acknowledge nothing beyond.
  end_pos bigint not null,
  ended_ts bigint not null,
  reason text not null
);
`
