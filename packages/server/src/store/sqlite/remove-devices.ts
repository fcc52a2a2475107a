/**
 * The end of devices: logout, deletion, a change of password. One transaction takes the tokens, the keys, the messages
 * and what was signed. The row and the log of its pools stay, marked as removed: they are the memory that keeps issued
 * keys from being issued again, should the device ID be used once more (sessions.ts).
 */
import type { DeviceId } from '@latchkey/protocol'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { type Core, deviceListChanged } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Transaction } from './database.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import { purgePools } from './purge-pools.ts'
import { bringUpToDate } from './purge-stale-pools.ts'
import { requireDevice } from './session-device.ts'

type DeviceName = { readonly device_num: DeviceRef; readonly device_id: DeviceId }

export function removeDevices(
  core: Core,
  session: Session,
  deviceIds: readonly DeviceId[],
  now: number,
): Promise<void> {
  const wanted = new Set(deviceIds)
  return removeChosen(core, session, now, (device) => wanted.has(device.device_id))
}

export function removeAllDevices(core: Core, session: Session, now: number): Promise<void> {
  return removeChosen(core, session, now, () => true)
}

function removeChosen(
  core: Core,
  session: Session,
  now: number,
  isChosen: (device: DeviceName) => boolean,
): Promise<void> {
  const chosen = (): DeviceRef[] =>
    devicesOf(core, session.userRef)
      .filter(isChosen)
      .map((device) => device.device_num)
  return core.queue.guarded(
    (tx) => {
      requireDevice(core, session)
      removeInTransaction(core, tx, session.userRef, chosen(), now)
    },
    removing(core, chosen),
  )
}

/** The devices that a user has. */
export function devicesOf(core: Core, user: UserRef): DeviceName[] {
  return core.db.all<DeviceName>(
    `select device_num, device_id from devices where user_num = ? and removed_ts is null`,
    user,
  )
}

/** What stands around a guarded operation that removes `chosen` devices: their pools leave memory before it. */
export function removing(
  core: Core,
  chosen: () => readonly DeviceRef[],
): { readonly before: (tx: Transaction) => void; readonly undone: () => void } {
  return {
    before(tx) {
      for (const device of chosen()) bringUpToDate(core, tx, device)
    },
    undone() {
      for (const device of chosen()) {
        core.keys.forget(device)
        core.inboxes.forget(device)
      }
    },
  }
}

/** Removes a user's existing devices, inside a transaction that `removing` stands around. */
export function removeInTransaction(
  core: Core,
  tx: Transaction,
  user: UserRef,
  devices: readonly DeviceRef[],
  now: number,
): void {
  if (devices.length === 0) return
  for (const device of devices) {
    endTokens(core, device)
    purgePools(tx, device, REMOVAL_PURGE, now)
    core.keys.forget(device)
    deleteBelongings(core, device)
    core.db.run(
      `update devices set removed_ts = ?, display_name = null, last_seen_ts = null, last_seen_ip = null,
         device_keys = null, ed25519 = null, curve25519 = null, identity_changed = 0
       where device_num = ?`,
      now,
      device,
    )
    core.inboxes.forget(device)
  }
  deviceListChanged(core, user)
}

/** Ends the sessions of a device, and its waiting syncs with them, inside a transaction. */
export function endTokens(core: Core, device: DeviceRef): void {
  const ended = core.db.all<{ token_hash: TokenHash }>(
    `delete from access_tokens where device_num = ? returning token_hash`,
    device,
  )
  for (const { token_hash } of ended) core.sessions.forget(token_hash)
  core.wakes.device(device)
}

function deleteBelongings(core: Core, device: DeviceRef): void {
  dropDeviceSignatures(core, device)
  core.db.run(`delete from former_identities where device_num = ?`, device)
  core.db.run(`delete from inbox where device_num = ?`, device)
  core.db.run(`delete from sent_transactions where device_num = ?`, device)
  core.db.run(`delete from reset_answers where device_num = ?`, device)
}
