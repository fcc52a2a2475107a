/** Users that the operator has locked (accounts/locked-users.ts). */
export const lockedUsers = `
alter table users add column locked_ts integer;
`
