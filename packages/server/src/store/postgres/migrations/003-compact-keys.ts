/**
 * Stored keys in fewer bytes (bench/RESULTS.md): pools and places of keys are numbered in 4 bytes, and the index has 3
 * bytes of the hash of a key's material, which the row then confirms. The index is per pool: a look-up of 50 keys in a
 * pool of 5 000 reads an unneeded row about once in 70 times.
 */
export const compactKeys = `
alter table pools alter column pool_num type integer;
drop index one_time_keys_by_material;
alter table one_time_keys alter column pool_num type integer, alter column seq type integer;
create index one_time_keys_by_material on one_time_keys (pool_num, substr(material, 1, 3));
alter table issues alter column pool_num type integer, alter column seq type integer;
alter table former_fallback_keys alter column pool_num type integer;
alter table fallback_issues alter column pool_num type integer;
-- Columns of another type have no statistics.
analyze pools, one_time_keys, issues, former_fallback_keys, fallback_issues;
`
