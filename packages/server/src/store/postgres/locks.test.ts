/** The compiler refuses rows that are not locked, and statements outside of a transaction. */
import { test } from 'node:test'
import type { DeviceRef, UserRef } from '../../session.ts'
import type { Changes } from './changes.ts'
import type { Write } from './core.ts'
import type { Queries, Snapshot } from './database.ts'
import type { LockedDeviceRef, LockedUser, RecipientRef } from './locks.ts'
import { purgePools } from './purge-pools.ts'
import { REMOVAL_PURGE } from '../../pool/purge.ts'
import { endTokens } from './remove-devices.ts'
import { lockUser } from './session-device.ts'

type Unlocked = { readonly user: UserRef; readonly device: DeviceRef; readonly recipient: RecipientRef }
type Locked = { readonly user: LockedUser; readonly device: LockedDeviceRef }

/** Compiled and never run: without an error in the next line, each directive is an error itself. */
function refused(changes: Changes, tx: Write, db: Queries & Snapshot, row: Unlocked, locked: Locked): void {
  changes.signal(locked.device)
  // @ts-expect-error -- not locked
  changes.signal(row.device)
  // @ts-expect-error -- locked against removal only
  changes.signal(row.recipient)
  changes.listChanged(locked.user)
  // @ts-expect-error -- not locked
  changes.listChanged(row.user)
  changes.deliver([{ device: row.recipient, sender: row.user, event: '', length: 0 }])
  // @ts-expect-error -- not locked
  changes.deliver([{ device: row.device, sender: row.user, event: '', length: 0 }])
  // @ts-expect-error -- not locked
  void endTokens(tx, [row.device])
  void purgePools(tx, [locked.device], REMOVAL_PURGE, 0)
  // @ts-expect-error -- not locked
  void purgePools(tx, [row.device], REMOVAL_PURGE, 0)
  // @ts-expect-error -- not a transaction that writes
  void purgePools(db, [locked.device], REMOVAL_PURGE, 0)
  // @ts-expect-error -- not a transaction that writes
  void lockUser(db, row.user)
}

test('the compiler requires transactions and locks', () => void refused)
