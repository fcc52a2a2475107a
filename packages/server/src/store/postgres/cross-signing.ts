/**
 * Cross-signing keys and the signatures between keys (devices/replace-keys.ts, devices/add-signatures.ts). All changes
 * by one user happen one after the other, under the lock of the user's row.
 */
import type { FinishedAuth } from '../../accounts/port.ts'
import { decideSignatures, signerName } from '../../devices/add-signatures.ts'
import type {
  CrossSigningKey,
  CrossSigningUsage,
  KeySignature,
  SignedCrossSigning,
} from '../../devices/port.ts'
import { type Audience, decideReplacement, type ReplacementFacts } from '../../devices/replace-keys.ts'
import type { Session, UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, type Write, write } from './core.ts'
import type { Transaction } from './database.ts'
import type { LockedDeviceRef, LockedUser } from './locks.ts'
import { lockSessionUser } from './session-device.ts'

export function putCrossSigning(
  core: Core,
  session: Session,
  { keys, signatures }: SignedCrossSigning,
  seenMaster: string | undefined,
  finishes?: FinishedAuth,
): Promise<void> {
  return write(core, async (tx) => {
    await finishAuth(tx, finishes)
    const user = await lockSessionUser(tx, session)
    const facts = await replacementFacts(tx, user, keys)
    const { put, replaced, audience } = decideReplacement(facts, keys, seenMaster)
    for (const publicKey of replaced) await dropSignatures(tx, user, publicKey)
    for (const key of put) await putKey(tx, user, key)
    if (signatures.length > 0) await storeSignatures(tx, user, user, signatures)
    if (audience !== undefined) notify(tx, audience, user, user)
  })
}

type FactRow =
  | { readonly kind: 'device'; readonly name: string }
  | { readonly kind: CrossSigningUsage; readonly name: string; readonly json: string }

/** The user's cross-signing keys, and the devices that the uploaded keys name. */
async function replacementFacts(
  tx: Transaction,
  user: LockedUser,
  keys: readonly CrossSigningKey[],
): Promise<ReplacementFacts> {
  const rows = await tx.all<FactRow>(
    `select usage as kind, public_key as name, json from cross_signing_keys where user_num = $1
     union all
     select 'device', device_id, null from devices
     where user_num = $1 and device_id = any($2::text[]) and removed_ts is null`,
    user,
    keys.map((key) => key.publicKey),
  )
  return {
    stored: rows.flatMap((row) =>
      row.kind === 'device' ? [] : [{ usage: row.kind, publicKey: row.name, json: row.json }],
    ),
    deviceIds: new Set(rows.flatMap((row) => (row.kind === 'device' ? [row.name] : []))),
  }
}

async function putKey(
  tx: Transaction,
  user: LockedUser,
  { usage, publicKey, json }: CrossSigningKey,
): Promise<void> {
  await tx.run(
    `insert into cross_signing_keys (user_num, usage, public_key, json) values ($1, $2, $3, $4)
     on conflict (user_num, usage) do update set public_key = excluded.public_key, json = excluded.json`,
    user,
    usage,
    publicKey,
    json,
  )
}

/** Deletes the signatures on a replaced key, and those by it on the user's own keys. */
async function dropSignatures(tx: Transaction, user: LockedUser, publicKey: string): Promise<void> {
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
  return write(core, async (tx) => {
    const signer = await lockSessionUser(tx, session)
    const { changed, audience } = await storeSignatures(tx, target, signer, signatures)
    if (changed) notify(tx, audience, signer, target)
  })
}

/** Devices and keys of the signer cannot end meanwhile, because the signer is locked. */
async function storeSignatures(
  tx: Transaction,
  target: UserRef,
  signer: LockedUser,
  signatures: readonly KeySignature[],
): Promise<{ readonly changed: boolean; readonly audience: Audience }> {
  const { put, replacesOthers, audience } = decideSignatures(signer, target, signatures, {
    ofTarget: await existingNames(
      tx,
      target,
      signatures.map(({ keyId }) => keyId),
    ),
    ofSigner: await existingNames(tx, signer, signatures.map(signerName)),
  })
  if (replacesOthers) await dropOthers(tx, target, signer, put)
  return { changed: await addSignatureRows(tx, target, signer, put), audience }
}

/** Those of the names that are devices or cross-signing keys of the user. */
async function existingNames(
  tx: Transaction,
  user: UserRef,
  names: readonly string[],
): Promise<ReadonlySet<string>> {
  const rows = await tx.all<{ name: string }>(
    `select device_id as name from devices
     where user_num = $1 and device_id = any($2::text[]) and removed_ts is null
     union all
     select public_key from cross_signing_keys where user_num = $1 and public_key = any($2::text[])`,
    user,
    names,
  )
  return new Set(rows.map(({ name }) => name))
}

/** Marks the device list of `target` as changed by `user`. Changes that everyone learns are those of one's own list. */
function notify({ changes }: Write, audience: Audience, user: LockedUser, target: UserRef): void {
  if (audience === 'user') return changes.listChangedFor(user, target)
  if (target !== user)
    throw new Error(`a change by user ${user} to the list of user ${target} is for everyone`)
  changes.listChanged(user)
}

async function dropOthers(
  tx: Transaction,
  target: UserRef,
  signer: LockedUser,
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

/** Returns whether one of the signatures is new. */
async function addSignatureRows(
  tx: Transaction,
  target: UserRef,
  signer: LockedUser,
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

/**
 * Deletes the signatures on and by the keys of devices of a user: they do not hold for other installations with their
 * IDs, or for other identities.
 */
export async function dropDeviceSignatures(
  tx: Transaction,
  user: LockedUser,
  devices: readonly LockedDeviceRef[],
): Promise<void> {
  await tx.run(
    `delete from key_signatures using devices
     where device_num = any($1::bigint[]) and key_signatures.user_num = $2 and key_id = device_id`,
    devices,
    user,
  )
  await tx.run(
    `delete from key_signatures using devices
     where device_num = any($1::bigint[]) and key_signatures.user_num = $2 and signer_num = $2
       and signer_key_id = 'ed25519:' || device_id`,
    devices,
    user,
  )
}
