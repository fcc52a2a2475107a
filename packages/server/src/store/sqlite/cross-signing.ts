/** Cross-signing keys and the signatures between keys (devices/replace-keys.ts, devices/add-signatures.ts). */
import type { FinishedAuth } from '../../accounts/port.ts'
import { decideSignatures, signerName } from '../../devices/add-signatures.ts'
import type { CrossSigningKey, KeySignature, SignedCrossSigning } from '../../devices/port.ts'
import { type Audience, decideReplacement } from '../../devices/replace-keys.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, deviceListChanged } from './core.ts'
import type { Reader, Transaction } from './database.ts'
import { crossSigningKeys } from './published-keys.ts'
import { proveSession } from './session-device.ts'
import { listChangedFor } from './tracked-users.ts'

export function putCrossSigning(
  core: Core,
  session: Session,
  { keys, signatures }: SignedCrossSigning,
  seenMaster: string | undefined,
  finishes?: FinishedAuth,
): Promise<void> {
  return core.queue.guarded((tx) => {
    finishAuth(tx, finishes)
    const { userRef } = proveSession(tx, session).session
    const facts = {
      stored: crossSigningKeys(tx, userRef),
      deviceIds: devicesNamed(tx, userRef, keys),
    }
    const { put, replaced, audience } = decideReplacement(facts, keys, seenMaster)
    for (const publicKey of replaced) dropSignatures(tx, userRef, publicKey)
    for (const key of put) putKey(tx, userRef, key)
    if (signatures.length > 0) storeSignatures(tx, userRef, userRef, signatures)
    if (audience !== undefined) markListChanged(core, tx, audience, userRef, userRef)
  })
}

/** The IDs of the user's devices that are equal to one of the public keys. */
function devicesNamed(db: Reader, user: UserRef, keys: readonly CrossSigningKey[]): ReadonlySet<string> {
  const rows = db.all<{ device_id: string }>(
    `select device_id from devices
     where user_num = ? and device_id in (select value from json_each(?)) and removed_ts is null`,
    user,
    JSON.stringify(keys.map((key) => key.publicKey)),
  )
  return new Set(rows.map((row) => row.device_id))
}

function putKey(tx: Transaction, user: UserRef, { usage, publicKey, json }: CrossSigningKey): void {
  tx.run(
    `insert into cross_signing_keys (user_num, usage, public_key, json) values (?1, ?2, ?3, ?4)
     on conflict do update set public_key = ?3, json = ?4`,
    user,
    usage,
    publicKey,
    json,
  )
}

/** Deletes the signatures on a replaced key, and those by it on the user's own keys. */
function dropSignatures(tx: Transaction, user: UserRef, publicKey: string): void {
  tx.run(`delete from key_signatures where user_num = ? and key_id = ?`, user, publicKey)
  tx.run(
    `delete from key_signatures where user_num = ?1 and signer_num = ?1 and signer_key_id = ?2`,
    user,
    `ed25519:${publicKey}`,
  )
}

export function addSignatures(
  core: Core,
  session: Session,
  target: UserRef,
  signatures: readonly KeySignature[],
): Promise<void> {
  return core.queue.guarded((tx) => {
    const signer = proveSession(tx, session).session.userRef
    const { changed, audience } = storeSignatures(tx, target, signer, signatures)
    if (changed) markListChanged(core, tx, audience, signer, target)
  })
}

function storeSignatures(
  tx: Transaction,
  target: UserRef,
  signer: UserRef,
  signatures: readonly KeySignature[],
): { readonly changed: boolean; readonly audience: Audience } {
  const { put, replacesOthers, audience } = decideSignatures(signer, target, signatures, {
    ofTarget: existingNames(
      tx,
      target,
      signatures.map(({ keyId }) => keyId),
    ),
    ofSigner: existingNames(tx, signer, signatures.map(signerName)),
  })
  let changed = false
  for (const signature of put) {
    if (replacesOthers) dropOthers(tx, target, signer, signature)
    changed = addSignature(tx, target, signer, signature) || changed
  }
  return { changed, audience }
}

/** Those of the names that are devices or cross-signing keys of the user. */
function existingNames(db: Reader, user: UserRef, names: readonly string[]): ReadonlySet<string> {
  const rows = db.all<{ name: string }>(
    `select device_id as name from devices
     where user_num = ?1 and device_id in (select value from json_each(?2)) and removed_ts is null
     union all
     select public_key from cross_signing_keys
     where user_num = ?1 and public_key in (select value from json_each(?2))`,
    user,
    JSON.stringify(names),
  )
  return new Set(rows.map(({ name }) => name))
}

/** Marks the device list of `target` as changed by `user`. */
function markListChanged(
  core: Core,
  tx: Transaction,
  audience: Audience,
  user: UserRef,
  target: UserRef,
): void {
  if (audience === 'everyone') deviceListChanged(core, tx, target)
  else listChangedFor(core, tx, user, target)
}

function dropOthers(tx: Transaction, target: UserRef, signer: UserRef, signature: KeySignature): void {
  tx.run(
    `delete from key_signatures where user_num = ? and key_id = ? and signer_num = ? and signer_key_id <> ?`,
    target,
    signature.keyId,
    signer,
    signature.signerKeyId,
  )
}

/**
 * Deletes the signatures on and by the keys of a device: they do not hold for another installation with its ID, or for
 * another identity.
 */
export function dropDeviceSignatures(tx: Transaction, device: DeviceRef): void {
  tx.run(
    `delete from key_signatures where (user_num, key_id) in
       (select user_num, device_id from devices where device_num = ?)`,
    device,
  )
  tx.run(
    `delete from key_signatures where (signer_num, user_num, signer_key_id) in
       (select user_num, user_num, 'ed25519:' || device_id from devices where device_num = ?)`,
    device,
  )
}

/** Returns whether the signature is new. */
function addSignature(tx: Transaction, target: UserRef, signer: UserRef, added: KeySignature): boolean {
  const changes = tx.run(
    `insert into key_signatures (user_num, key_id, signer_num, signer_key_id, signature) values (?1, ?2, ?3, ?4, ?5)
     on conflict do update set signature = ?5 where signature <> ?5`,
    target,
    added.keyId,
    signer,
    added.signerKeyId,
    added.signature,
  )
  return changes > 0
}
