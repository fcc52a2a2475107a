/**
 * An index of the signatures by a key, which end with it (devices/remove.ts), and of those that one viewer sees.
 * Earlier versions kept signatures by removed devices on the master key: they are deleted.
 */
export const signaturesBySigner = `
create index key_signatures_by_signer on key_signatures (signer_num, user_num, signer_key_id);

delete from key_signatures where signer_num = user_num
  and substr(signer_key_id, 9) not in
    (select device_id from devices where devices.user_num = key_signatures.user_num and removed_ts is null)
  and substr(signer_key_id, 9) not in
    (select public_key from cross_signing_keys as own where own.user_num = key_signatures.user_num);
`
