/** Accounts that have ended (accounts/deactivate.ts): their names are not given again. */
export const deactivatedAccounts = `
alter table users add column deactivated_ts bigint;
`
