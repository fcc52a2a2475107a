/**
 * The use of daily budgets (pool/daily-budget.ts), besides that of the keys of a device: heals of a device, keys and
 * bytes of a user.
 */
export const dailyBudgets = `
alter table devices add column heals_day_start_ts integer not null default 0;
alter table devices add column heals_used integer not null default 0;
alter table users add column keys_day_start_ts integer not null default 0;
alter table users add column keys_used integer not null default 0;
alter table users add column bytes_day_start_ts integer not null default 0;
alter table users add column bytes_used integer not null default 0;
`
