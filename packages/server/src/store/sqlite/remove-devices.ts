/** Removal of devices and, in the same transaction, of everything that belongs to them (devices/remove.ts). */
import type { DeviceId } from '@latchkey/protocol'
import type { FinishedAuth } from '../../accounts/port.ts'
import {
  chosenDevices,
  type Choice,
  DELETED_WITH_DEVICE,
  type DeletedWithDevice,
  EMPTIED_WITH_DEVICE,
  type ExistingDevice,
} from '../../devices/remove.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import type { DeviceRef, Session, TokenHash, UserRef } from '../../session.ts'
import { finishAuth } from './auth-sessions.ts'
import { type Core, deviceListChanged } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Transaction } from './database.ts'
import { purgePools } from './purge-pools.ts'
import { bringUpToDate } from './purge-stale-pools.ts'
import { proveSession } from './session-device.ts'

export function removeDevices(
  core: Core,
  session: Session,
  choice: Choice,
  now: number,
  finishes?: FinishedAuth,
): Promise<void> {
  const removal = removing(core, session.userRef, choice)
  return core.queue.guarded((tx) => {
    finishAuth(tx, finishes)
    removeChosen(core, tx, proveSession(tx, session).session.userRef, removal.chosen(), now)
  }, removal)
}

type Removal = {
  readonly chosen: () => readonly DeviceRef[]
  readonly before: (tx: Transaction) => void
  readonly undone: () => void
}

/** The frame of a guarded operation that removes devices: it settles their pools first, which stays if it fails. */
export function removing(core: Core, user: UserRef, choice: Choice): Removal {
  const chosen = (): readonly DeviceRef[] => chosenDevices(devicesOf(core, user), choice)
  return {
    chosen,
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

function devicesOf(core: Core, user: UserRef): ExistingDevice[] {
  return core.db
    .all<{ device_num: DeviceRef; device_id: DeviceId }>(
      `select device_num, device_id from devices where user_num = ? and removed_ts is null`,
      user,
    )
    .map((row) => ({ deviceRef: row.device_num, deviceId: row.device_id }))
}

/** Removes existing devices of a user, in an operation with the frame of `removing`. */
export function removeChosen(
  core: Core,
  tx: Transaction,
  user: UserRef,
  devices: readonly DeviceRef[],
  now: number,
): void {
  if (devices.length === 0) return
  for (const device of devices) {
    endTokens(core, tx, device)
    purgePools(tx, device, REMOVAL_PURGE, now)
    core.keys.forget(device)
    for (const belonging of DELETED_WITH_DEVICE) DELETE[belonging](tx, device)
    tx.run(
      `update devices set removed_ts = ?, identity_changed = 0,
         ${EMPTIED_WITH_DEVICE.map((column) => `${column} = null`).join(', ')}
       where device_num = ?`,
      now,
      device,
    )
    core.inboxes.forget(device)
  }
  deviceListChanged(core, tx, user)
}

const DELETE: Readonly<Record<DeletedWithDevice, (tx: Transaction, device: DeviceRef) => void>> = {
  signatures: dropDeviceSignatures,
  former_identities: from('former_identities'),
  inbox: from('inbox'),
  sent_transactions: from('sent_transactions'),
  reset_answers: from('reset_answers'),
  conflicts: from('conflicts'),
}

function from(table: DeletedWithDevice): (tx: Transaction, device: DeviceRef) => void {
  return (tx, device) => void tx.run(`delete from ${table} where device_num = ?`, device)
}

/** Ends the sessions of a device, and so its waiting syncs. */
export function endTokens(core: Core, tx: Transaction, device: DeviceRef): void {
  const ended = tx.all<{ token_hash: TokenHash }>(
    `delete from access_tokens where device_num = ? returning token_hash`,
    device,
  )
  for (const { token_hash } of ended) core.sessions.forget(token_hash)
  core.wakes.device(tx, device)
}
