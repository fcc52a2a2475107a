/** The available keys of a pool after the last upload: of them the reserve is computed (pool/claim.ts). */
export const filledPools = `
alter table pools add column filled integer not null default 0;
update pools set filled = greatest(count, told);
`
