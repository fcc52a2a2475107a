/**
 * Cross-signing keys and the signatures between keys. The checks are devices/cross-signing.ts and
 * devices/signatures.ts; here is who hears of a change: of master and self-signing keys everyone who tracks the user,
 * of her user-signing key only herself, of her signature on another user's key only herself.
 * Everything a user does here happens under the lock of her row, one after the other.
 */
import type { CrossSigningKey, KeySignature } from '../../devices/port.ts'
import { forbidden, quoted } from '../../matrix-error.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, write } from './core.ts'
import type { Queries } from './database.ts'
import { lockUser, requireToken } from './session-device.ts'

/** A key that is stored already, as it is, counts as no change: a lost answer is repaired by the same request again. */
export function putCrossSigning(
  core: Core,
  session: Session,
  keys: readonly CrossSigningKey[],
  seenMaster: string | undefined,
): Promise<void> {
  const user = session.userRef
  return write(core, async (tx) => {
    await lockUser(tx, user)
    await requireToken(tx, session)
    await requireMaster(tx, user, seenMaster)
    await requireNoDeviceNamed(
      tx,
      user,
      keys.map((key) => key.publicKey),
    )
    const changed: CrossSigningKey[] = []
    for (const key of keys) if (await putKey(tx, user, key)) changed.push(key)
    if (changed.some((key) => key.usage !== 'user_signing')) tx.changes.listChanged(user)
    else if (changed.length > 0) tx.changes.listChangedFor(user, user)
  })
}

/** What the caller was allowed to do depends on the master key it saw: two first uploads at once are not both the first. */
async function requireMaster(tx: Queries, user: UserRef, seen: string | undefined): Promise<void> {
  const sql = `select public_key from cross_signing_keys where user_num = $1 and usage = 'master'`
  if ((await tx.one<{ public_key: string }>(sql, user))?.public_key === seen) return
  throw forbidden(
    'Another request changed the cross-signing keys at the same time: look at them and try again.',
  )
}

/** Device IDs and cross-signing public keys share one name space: signatures name the key they are on by either. */
async function requireNoDeviceNamed(
  tx: Queries,
  user: UserRef,
  publicKeys: readonly string[],
): Promise<void> {
  const device = await tx.one<{ device_id: string }>(
    `select device_id from devices where user_num = $1 and device_id = any($2::text[]) and removed_ts is null`,
    user,
    publicKeys,
  )
  if (device === undefined) return
  throw forbidden(
    `The public key ${quoted(device.device_id)} is the ID of one of the user's devices; expected a key of its own.`,
  )
}

async function putKey(tx: Queries, user: UserRef, key: CrossSigningKey): Promise<boolean> {
  const old = await tx.one<{ public_key: string; json: string }>(
    `select public_key, json from cross_signing_keys where user_num = $1 and usage = $2`,
    user,
    key.usage,
  )
  if (old?.json === key.json) return false
  if (old !== undefined && old.public_key !== key.publicKey) await dropSignatures(tx, user, old.public_key)
  await tx.run(
    `insert into cross_signing_keys (user_num, usage, public_key, json) values ($1, $2, $3, $4)
     on conflict (user_num, usage) do update set public_key = excluded.public_key, json = excluded.json`,
    user,
    key.usage,
    key.publicKey,
    key.json,
  )
  return true
}

/** Signatures on a replaced key, and by it on the user's own keys, say nothing any more. */
async function dropSignatures(tx: Queries, user: UserRef, publicKey: string): Promise<void> {
  await tx.run(
    `delete from key_signatures
     where user_num = $1 and (key_id = $2 or (signer_num = $1 and signer_key_id = $3))`,
    user,
    publicKey,
    `ed25519:${publicKey}`,
  )
}

export function addSignatures(
  core: Core,
  session: Session,
  target: UserRef,
  signatures: readonly KeySignature[],
): Promise<void> {
  const signer = session.userRef
  return write(core, async (tx) => {
    await lockUser(tx, signer)
    await requireToken(tx, session)
    const added = latest(signatures, target === signer)
    // A user has one user-signing key: what a former one of hers said of another user's key goes.
    if (target !== signer) await dropOthers(tx, target, signer, added)
    if (!(await storeSignatures(tx, target, signer, added))) return
    if (target === signer) tx.changes.listChanged(target)
    else tx.changes.listChangedFor(signer, target)
  })
}

/** The last one counts: of each signing key for own keys, of all of them for another user's. */
function latest(signatures: readonly KeySignature[], own: boolean): readonly KeySignature[] {
  const nameOf = ({ keyId, signerKeyId }: KeySignature): string => (own ? `${keyId}\0${signerKeyId}` : keyId)
  return [...new Map(signatures.map((signature) => [nameOf(signature), signature])).values()]
}

async function dropOthers(
  tx: Queries,
  target: UserRef,
  signer: UserRef,
  signatures: readonly KeySignature[],
): Promise<void> {
  await tx.run(
    `delete from key_signatures as old using unnest($3::text[], $4::text[]) as new (key_id, signer_key_id)
     where old.user_num = $1 and old.signer_num = $2 and old.key_id = new.key_id
       and old.signer_key_id <> new.signer_key_id`,
    target,
    signer,
    signatures.map(({ keyId }) => keyId),
    signatures.map(({ signerKeyId }) => signerKeyId),
  )
}

/** Whether any of them was not there yet. */
async function storeSignatures(
  tx: Queries,
  target: UserRef,
  signer: UserRef,
  signatures: readonly KeySignature[],
): Promise<boolean> {
  const changes = await tx.run(
    `insert into key_signatures as old (user_num, key_id, signer_num, signer_key_id, signature)
     select $1, key_id, $2, signer_key_id, signature
     from unnest($3::text[], $4::text[], $5::text[]) as new (key_id, signer_key_id, signature)
     on conflict (user_num, key_id, signer_num, signer_key_id)
       do update set signature = excluded.signature where old.signature <> excluded.signature`,
    target,
    signer,
    signatures.map(({ keyId }) => keyId),
    signatures.map(({ signerKeyId }) => signerKeyId),
    signatures.map(({ signature }) => signature),
  )
  return changes > 0
}

/** What was said of devices says nothing of others with their IDs. The row of their user is locked already. */
export async function dropDeviceSignatures(tx: Queries, devices: readonly DeviceRef[]): Promise<void> {
  await tx.run(
    `delete from key_signatures using devices
     where device_num = any($1::bigint[]) and key_signatures.user_num = devices.user_num and key_id = device_id`,
    devices,
  )
}
