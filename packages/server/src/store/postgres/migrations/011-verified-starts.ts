/**
 * The wait for other processes after a server start, without clocks (postgres/verified-starts.ts): the start that all
 * of them have verified, or were waited for. Times of writes are the database's from now on; those of a process whose
 * clock was ahead end now.
 */
export const verifiedStarts = `
alter table stream drop column server_start_noted;
alter table stream add column server_start_verified text;

-- Waited for in vain; the next start does not wait for it, unless it has verified one since.
alter table looks add column absent boolean not null default false;

update writers set ts = least(ts, (extract(epoch from clock_timestamp()) * 1000)::bigint);
update stream set server_start_written_ts =
  least(server_start_written_ts, (extract(epoch from clock_timestamp()) * 1000)::bigint);
`
