/** Published keys of users: their devices' keys, their cross-signing keys, and the signatures added to them. */
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { CrossSigningKey, CrossSigningUsage, KeySignature, PublishedKeys } from '../../devices/port.ts'
import type { UserRef } from '../../session.ts'
import type { Core } from './core.ts'
import type { Reader } from './database.ts'

type DeviceKeysRow = { device_id: DeviceId; display_name: string | null; device_keys: string }
type SignatureRow = { key_id: string; user_id: UserId; signer_key_id: string; signature: string }

export function publishedKeys(
  core: Core,
  userIds: readonly UserId[],
  viewer: UserRef,
): ReadonlyMap<UserId, PublishedKeys> {
  return new Map(
    userIds.flatMap((userId) => {
      const keys = keysOf(core, userId, viewer)
      return keys === undefined ? [] : [[userId, keys] as const]
    }),
  )
}

function keysOf(core: Core, userId: UserId, viewer: UserRef): PublishedKeys | undefined {
  const user = core.db.one<{ user_num: UserRef }>(`select user_num from users where user_id = ?`, userId)
  if (user === undefined) return undefined
  const devices = core.db.all<DeviceKeysRow>(
    `select device_id, display_name, device_keys from devices
     where user_num = ? and removed_ts is null and device_keys is not null`,
    user.user_num,
  )
  const signatures = core.db.all<SignatureRow>(
    `select key_id, users.user_id, signer_key_id, signature
     from key_signatures join users on users.user_num = signer_num
     where key_signatures.user_num = ?1 and signer_num in (?1, ?2)`,
    user.user_num,
    viewer,
  )
  return {
    userRef: user.user_num,
    devices: devices.map((row) => ({
      deviceId: row.device_id,
      ...(row.display_name !== null && { displayName: row.display_name }),
      json: row.device_keys,
    })),
    crossSigning: crossSigningKeys(core.db, user.user_num),
    signatures: signatures.map(
      (row): KeySignature => ({
        keyId: row.key_id,
        signer: row.user_id,
        signerKeyId: row.signer_key_id,
        signature: row.signature,
      }),
    ),
  }
}

export function crossSigningKeys(db: Reader, user: UserRef): CrossSigningKey[] {
  return db
    .all<{ usage: CrossSigningUsage; public_key: string; json: string }>(
      `select usage, public_key, json from cross_signing_keys where user_num = ?`,
      user,
    )
    .map((row) => ({ usage: row.usage, publicKey: row.public_key, json: row.json }))
}
