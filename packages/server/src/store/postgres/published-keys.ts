/**
 * Published keys of users: device keys, cross-signing keys, and the signatures added to them. One statement for all
 * users, so that all rows are of one instant.
 */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type {
  CrossSigningKey,
  CrossSigningUsage,
  KeySignature,
  PublishedDevice,
  PublishedKeys,
} from '../../devices/port.ts'
import type { UserRef } from '../../session.ts'
import type { Core } from './core.ts'

type Of<Kind extends string, Columns> = {
  readonly kind: Kind
  readonly user_id: UserId
  readonly user_num: UserRef
} & Columns

type PublishedRow =
  | Of<'user', object>
  | Of<'device', { readonly a: DeviceId; readonly b: string; readonly c: string | null }>
  | Of<'cross_signing', { readonly a: CrossSigningUsage; readonly b: string; readonly c: string }>
  | Of<'signature', { readonly a: string; readonly b: string; readonly c: string; readonly d: UserId }>

type Collected = {
  readonly userRef: UserRef
  readonly devices: PublishedDevice[]
  readonly crossSigning: CrossSigningKey[]
  readonly signatures: KeySignature[]
}

export async function publishedKeys(
  core: Core,
  userIds: readonly UserId[],
  viewer: UserRef,
): Promise<ReadonlyMap<UserId, PublishedKeys>> {
  const rows = await core.db.all<PublishedRow>(
    `with wanted as materialized (select user_id, user_num from users where user_id = any($1::text[]))
     select 'user' as kind, user_id, user_num, null as a, null as b, null as c, null as d from wanted
     union all
     select 'device', user_id, user_num, device_id, device_keys, display_name, null
     from wanted join devices using (user_num) where removed_ts is null and device_keys is not null
     union all
     select 'cross_signing', user_id, user_num, usage, public_key, json, null
     from wanted join cross_signing_keys using (user_num)
     union all
     select 'signature', wanted.user_id, wanted.user_num, key_id, signer_key_id, signature, signers.user_id
     from wanted cross join lateral (select wanted.user_num union select $2::bigint) as signer (num)
       join key_signatures on key_signatures.user_num = wanted.user_num and signer_num = signer.num
       join users as signers on signers.user_num = signer_num`,
    userIds,
    viewer,
  )
  const byUser = new Map<UserId, Collected>()
  for (const row of rows) {
    const { user_id: userId, user_num: userRef } = row
    const keys = byUser.get(userId) ?? { userRef, devices: [], crossSigning: [], signatures: [] }
    byUser.set(userId, keys)
    collect(keys, row)
  }
  return byUser
}

function collect(keys: Collected, row: PublishedRow): void {
  switch (row.kind) {
    case 'user':
      return
    case 'device':
      keys.devices.push({
        deviceId: row.a,
        json: row.b,
        ...(row.c !== null && { displayName: row.c }),
      })
      return
    case 'cross_signing':
      keys.crossSigning.push({ usage: row.a, publicKey: row.b, json: row.c })
      return
    case 'signature':
      keys.signatures.push({ keyId: row.a, signerKeyId: row.b, signature: row.c, signer: row.d })
  }
}
