/**
 * The rollback fence (key-pool.md "Rollback fence"): the last write of each process, the ended epochs with their last
 * positions, and the number of the fence below which fallback keys are purged as well.
 */
export const fence = `
alter table stream add column fallback_fence bigint not null default 0;

-- The last start of the database server that a process noticed, and the position of the stream at that time: after a
-- rollback, later positions may differ from those that clients have seen.
alter table stream add column server_start text;
alter table stream add column server_start_pos bigint not null default 0;
alter table stream add column server_start_written_ts bigint;
alter table stream add column server_start_noted timestamptz;

-- The server start that each process has last verified.
create table looks (writer_id text collate "C" primary key, server_start text not null);

alter table writers add column ts bigint not null default 0;

create table former_epochs (
  epoch text collate "C" primary key,
  -- Its last position: its tokens acknowledge nothing after it.
  end_pos bigint not null,
  ended_ts bigint not null,
  reason text not null
);
`
