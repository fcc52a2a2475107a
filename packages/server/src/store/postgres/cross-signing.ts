/**
 * Cross-signing keys and the signatures between keys (devices/replace-keys.ts, devices/add-signatures.ts). All changes
 * by one user happen one after the other, under the lock of the user's row.
 */
import { decideSignatures } from '../../devices/add-signatures.ts'
import type { CrossSigningKey, CrossSigningUsage, KeySignature } from '../../devices/port.ts'
import { type Audience, decideReplacement, type ReplacementFacts } from '../../devices/replace-keys.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, type Write, write } from './core.ts'
import type { Queries } from './database.ts'
import { lockUser, requireToken } from './session-device.ts'

export function putCrossSigning(
  core: Core,
  session: Session,
  keys: readonly CrossSigningKey[],
  seenMaster: string | undefined,
): Promise<void> {
  const { userRef } = session
  return write(core, async (tx) => {
    await lockUser(tx, userRef)
    await requireToken(tx, session)
    const facts = await replacementFacts(tx, userRef, keys)
    const { put, replaced, audience } = decideReplacement(facts, keys, seenMaster)
    for (const publicKey of replaced) await dropSignatures(tx, userRef, publicKey)
    for (const key of put) await putKey(tx, userRef, key)
    if (audience !== undefined) tell(tx, audience, userRef, userRef)
  })
}

type FactRow =
  | { readonly kind: 'device'; readonly name: string }
  | { readonly kind: CrossSigningUsage; readonly name: string; readonly json: string }

/** The user's cross-signing keys, and the devices that the uploaded keys name. */
async function replacementFacts(
  tx: Queries,
  user: UserRef,
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
  tx: Queries,
  user: UserRef,
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
  const { put, replacesOthers, audience } = decideSignatures(signer, target, signatures)
  return write(core, async (tx) => {
    await lockUser(tx, signer)
    await requireToken(tx, session)
    if (replacesOthers) await dropOthers(tx, target, signer, put)
    if (await storeSignatures(tx, target, signer, put)) tell(tx, audience, signer, target)
  })
}

/** Marks the device list of `target` as changed by `user`. */
function tell({ changes }: Write, audience: Audience, user: UserRef, target: UserRef): void {
  if (audience === 'everyone') changes.listChanged(target)
  else changes.listChangedFor(user, target)
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

/** Signatures on devices say nothing about others with their IDs. The row of their user is locked already. */
export async function dropDeviceSignatures(tx: Queries, devices: readonly DeviceRef[]): Promise<void> {
  await tx.run(
    `delete from key_signatures using devices
     where device_num = any($1::bigint[]) and key_signatures.user_num = devices.user_num and key_id = device_id`,
    devices,
  )
}
