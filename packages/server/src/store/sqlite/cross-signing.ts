/**
 * Cross-signing keys and the signatures between keys. The checks are devices/cross-signing.ts and
 * devices/signatures.ts; here is who hears of a change: of master and self-signing keys everyone who tracks the user,
 * of her user-signing key only herself, of her signature on another user's key only herself.
 */
import type { CrossSigningKey, KeySignature } from '../../devices/port.ts'
import { forbidden, quoted } from '../../matrix-error.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import { listChangedFor } from './tracked-users.ts'
import { requireDevice } from './session-device.ts'

/** A key that is stored already, as it is, counts as no change: a lost answer is repaired by the same request again. */
export function putCrossSigning(
  core: Core,
  session: Session,
  keys: readonly CrossSigningKey[],
  seenMaster: string | undefined,
): Promise<void> {
  return core.queue.guarded(() => {
    requireDevice(core, session)
    requireMaster(core, session.userRef, seenMaster)
    for (const key of keys) requireNoDeviceNamed(core, session.userRef, key.publicKey)
    const changed = keys.filter((key) => putKey(core, session.userRef, key))
    if (changed.some((key) => key.usage !== 'user_signing')) deviceListChanged(core, session.userRef)
    else if (changed.length > 0) listChangedFor(core, session.userRef, session.userRef)
  })
}

/** What the caller was allowed to do depends on the master key it saw: two first uploads at once are not both the first. */
function requireMaster({ db }: Core, user: UserRef, seen: string | undefined): void {
  const sql = `select public_key from cross_signing_keys where user_num = ? and usage = 'master'`
  if (db.one<{ public_key: string }>(sql, user)?.public_key === seen) return
  throw forbidden(
    'Another request changed the cross-signing keys at the same time: look at them and try again.',
  )
}

/** Device IDs and cross-signing public keys share one name space: signatures name the key they are on by either. */
function requireNoDeviceNamed({ db }: Core, user: UserRef, publicKey: string): void {
  const sql = `select 1 from devices where user_num = ? and device_id = ? and removed_ts is null`
  if (db.one<unknown>(sql, user, publicKey) === undefined) return
  throw forbidden(
    `The public key ${quoted(publicKey)} is the ID of one of the user's devices; expected a key of its own.`,
  )
}

function putKey({ db }: Core, user: UserRef, key: CrossSigningKey): boolean {
  const old = db.one<{ public_key: string; json: string }>(
    `select public_key, json from cross_signing_keys where user_num = ? and usage = ?`,
    user,
    key.usage,
  )
  if (old?.json === key.json) return false
  if (old !== undefined && old.public_key !== key.publicKey) dropSignatures(db, user, old.public_key)
  db.run(
    `insert into cross_signing_keys (user_num, usage, public_key, json) values (?1, ?2, ?3, ?4)
     on conflict do update set public_key = ?3, json = ?4`,
    user,
    key.usage,
    key.publicKey,
    key.json,
  )
  return true
}

/** Signatures on a replaced key, and by it on the user's own keys, say nothing any more. */
function dropSignatures(db: Core['db'], user: UserRef, publicKey: string): void {
  db.run(`delete from key_signatures where user_num = ? and key_id = ?`, user, publicKey)
  db.run(
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
  return core.queue.guarded(() => {
    requireDevice(core, session)
    const signer = session.userRef
    let changed = false
    for (const signature of signatures) {
      // A user has one user-signing key: what a former one of hers said of another user's key goes.
      if (target !== signer) dropOthers(core, target, signer, signature)
      changed = addSignature(core, target, signer, signature) || changed
    }
    if (!changed) return
    if (target === signer) deviceListChanged(core, target)
    else listChangedFor(core, signer, target)
  })
}

function dropOthers({ db }: Core, target: UserRef, signer: UserRef, signature: KeySignature): void {
  db.run(
    `delete from key_signatures where user_num = ? and key_id = ? and signer_num = ? and signer_key_id <> ?`,
    target,
    signature.keyId,
    signer,
    signature.signerKeyId,
  )
}

/** What was said of a device says nothing of another one with its ID. Inside a transaction. */
export function dropDeviceSignatures({ db }: Core, device: DeviceRef): void {
  db.run(
    `delete from key_signatures where (user_num, key_id) in
       (select user_num, device_id from devices where device_num = ?)`,
    device,
  )
}

/** Whether it was not there yet. */
function addSignature({ db }: Core, target: UserRef, signer: UserRef, added: KeySignature): boolean {
  const changes = db.run(
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
