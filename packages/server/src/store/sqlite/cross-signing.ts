/** Cross-signing keys and the signatures between keys (devices/replace-keys.ts, devices/add-signatures.ts). */
import { decideSignatures } from '../../devices/add-signatures.ts'
import type { CrossSigningKey, KeySignature } from '../../devices/port.ts'
import { type Audience, decideReplacement } from '../../devices/replace-keys.ts'
import type { DeviceRef, Session, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import { crossSigningKeys } from './published-keys.ts'
import { requireDevice } from './session-device.ts'
import { listChangedFor } from './tracked-users.ts'

export function putCrossSigning(
  core: Core,
  session: Session,
  keys: readonly CrossSigningKey[],
  seenMaster: string | undefined,
): Promise<void> {
  const { userRef } = session
  return core.queue.guarded(() => {
    requireDevice(core, session)
    const facts = {
      stored: crossSigningKeys(core, userRef),
      deviceIds: devicesNamed(core, userRef, keys),
    }
    const { put, replaced, audience } = decideReplacement(facts, keys, seenMaster)
    for (const publicKey of replaced) dropSignatures(core, userRef, publicKey)
    for (const key of put) putKey(core, userRef, key)
    if (audience !== undefined) tell(core, audience, userRef, userRef)
  })
}

/** The devices of the user that a public key names. */
function devicesNamed({ db }: Core, user: UserRef, keys: readonly CrossSigningKey[]): ReadonlySet<string> {
  const rows = db.all<{ device_id: string }>(
    `select device_id from devices
     where user_num = ? and device_id in (select value from json_each(?)) and removed_ts is null`,
    user,
    JSON.stringify(keys.map((key) => key.publicKey)),
  )
  return new Set(rows.map((row) => row.device_id))
}

function putKey({ db }: Core, user: UserRef, { usage, publicKey, json }: CrossSigningKey): void {
  db.run(
    `insert into cross_signing_keys (user_num, usage, public_key, json) values (?1, ?2, ?3, ?4)
     on conflict do update set public_key = ?3, json = ?4`,
    user,
    usage,
    publicKey,
    json,
  )
}

/** Deletes the signatures on a replaced key, and those by it on the user's own keys. */
function dropSignatures({ db }: Core, user: UserRef, publicKey: string): void {
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
  const signer = session.userRef
  const { put, replacesOthers, audience } = decideSignatures(signer, target, signatures)
  return core.queue.guarded(() => {
    requireDevice(core, session)
    let changed = false
    for (const signature of put) {
      if (replacesOthers) dropOthers(core, target, signer, signature)
      changed = addSignature(core, target, signer, signature) || changed
    }
    if (changed) tell(core, audience, signer, target)
  })
}

/** Marks the device list of `target` as changed by `user`. */
function tell(core: Core, audience: Audience, user: UserRef, target: UserRef): void {
  if (audience === 'everyone') deviceListChanged(core, target)
  else listChangedFor(core, user, target)
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

/** Signatures on a device say nothing about another one with its ID. Inside a transaction. */
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
