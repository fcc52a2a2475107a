/**
 * `/keys/upload`: device keys, one-time keys and fallback keys of one request, together or not at all.
 * Rules in this order: identity (pool/identity.ts), material, then ID (pool/upload.ts).
 */
import type { KeyMaterial } from '@latchkey/protocol'
import { compareIdentity, type Identity, type IdentityPart } from '../../pool/identity.ts'
import { requireSignedDeviceKeys } from '../../pool/signed-keys.ts'
import type { UploadCommand, UploadedDeviceKeys, UploadResult } from '../../pool/port.ts'
import type { DeviceRef, Session } from '../../session.ts'
import { type Core, deviceListChanged, signalDevice } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import { touchDevice } from './first-touch.ts'
import { bumpVersion, purgePools } from './pool-rows.ts'
import { type DeviceRow, type IdentityRow, requireDevice, toIdentity } from './session-device.ts'
import { storeKeys } from './store-keys.ts'
import { toldStatus } from './pool-status.ts'

export function uploadKeys(core: Core, command: UploadCommand): Promise<UploadResult> {
  const { deviceRef } = command.session
  return core.queue.guarded(() => upload(core, command), {
    before: () => touchDevice(core, deviceRef),
    undone: () => core.keys.forget(deviceRef),
  })
}

function upload(core: Core, command: UploadCommand): UploadResult {
  const { session, deviceKeys, now } = command
  let device = requireDevice(core, session)
  let identity = toIdentity(device)
  let identityChanged = false
  if (deviceKeys !== undefined && core.policy.verifySignatures) requireSignedDeviceKeys(deviceKeys, session)
  if (deviceKeys !== undefined && deviceKeys.json !== device.device_keys) {
    identityChanged = storeDeviceKeys(core, session, device, deviceKeys, now)
    identity = deviceKeys.identity
    device = requireDevice(core, session)
  }
  const stored = storeKeys(core, device, identity, {
    ...command,
    mayHeal: true,
    alreadyStored: identityChanged ? 1 : 0,
  })
  const left = stored.evicted.length > 0 || stored.healed || identityChanged
  if (stored.changed || left) bumpVersion(core, session.deviceRef, left)
  if (stored.healed || identityChanged) signalDevice(core, session.deviceRef)
  return {
    outcomes: stored.outcomes,
    fallbackOutcomes: stored.fallbackOutcomes,
    storedAs: stored.storedAs,
    evicted: stored.evicted,
    ...(identityChanged
      ? { purged: 'identity_changed' }
      : stored.healed
        ? { purged: 'conflict_healed' }
        : {}),
    status: toldStatus(core, session.deviceRef),
  }
}

/** Stores changed device keys; returns whether the identity changed, in which case the pools were purged. */
function storeDeviceKeys(
  core: Core,
  session: Session,
  device: DeviceRow & IdentityRow,
  uploaded: UploadedDeviceKeys,
  now: number,
): boolean {
  const changed =
    compareIdentity(toIdentity(device), uploaded.identity, (part, key) =>
      wasGivenUp(core, session.deviceRef, part, key),
    ) === 'changed'
  if (changed) changeIdentity(core, session.deviceRef, device, uploaded.identity, now)
  core.db.run(
    `update devices set device_keys = ?, ed25519 = ?, curve25519 = ? where device_num = ?`,
    uploaded.json,
    uploaded.identity.ed25519 ?? null,
    uploaded.identity.curve25519 ?? null,
    session.deviceRef,
  )
  deviceListChanged(core, device.user_num)
  return changed
}

function wasGivenUp({ db }: Core, device: DeviceRef, part: IdentityPart, key: KeyMaterial): boolean {
  return (
    db.one(`select 1 from former_identities where device_num = ? and ${part} = ? limit 1`, device, key) !==
    undefined
  )
}

/** Each half that is no longer the device's is given up. */
function changeIdentity(
  core: Core,
  deviceRef: DeviceRef,
  old: IdentityRow,
  current: Identity,
  now: number,
): void {
  purgePools(core, deviceRef, now)
  core.db.run(
    `insert into former_identities (device_num, ed25519, curve25519) values (?, ?, ?)`,
    deviceRef,
    old.ed25519 === current.ed25519 ? null : old.ed25519,
    old.curve25519 === current.curve25519 ? null : old.curve25519,
  )
  core.db.run(`update devices set identity_changed = 1 where device_num = ?`, deviceRef)
  dropDeviceSignatures(core, deviceRef)
}
