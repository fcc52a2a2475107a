/**
 * `latchkey fence` on an embedded database that no server has open. Settles the issue log first: a crash leaves one.
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { DeviceId, UserId } from '@latchkey/protocol'
import { judge } from '../../fence/judge.ts'
import {
  type AdoptedWitness,
  type FenceStatus,
  MAX_LISTED_EPOCHS,
  type RaiseCommand,
} from '../../fence/status.ts'
import type { DeviceRef } from '../../session.ts'
import { lockDirectory } from '../lock-file.ts'
import { StoreError, unknownDevice } from '../store-error.ts'
import { directoryOf, WITNESS_PLACE, type WitnessPlace } from '../witness-place.ts'
import { listWitnesses, recogniseCopies, Witness } from '../witness.ts'
import { readMeta } from './meta.ts'
import { signalDevice } from './core.ts'
import type { Database, Reader, Transaction } from './database.ts'
import { openDatabase } from './open-database.ts'
import {
  countersOf,
  databaseId,
  formerEpochs,
  lastEnded,
  lastWriteTs,
  marksOf,
  raiseFence as raiseFenceRows,
  readFence,
} from './fence-rows.ts'
import { KeyStates } from './key-states.ts'
import { Owner } from './owner.ts'
import { LatestPositions } from './latest-positions.ts'
import { fencePurge } from '../../pool/purge.ts'
import { purgePools } from './purge-pools.ts'
import { Positions } from './positions.ts'
import { writeTrustedPosition, writeTrustedWriter } from './trusted-position.ts'
import { Wakes } from './wakes.ts'

type WitnessDirectory = WitnessPlace | undefined

/** @throws {StoreError} when there is no database, or a server has it open. */
export async function fenceStatus(directory: string, fence: WitnessDirectory): Promise<FenceStatus> {
  return withDatabase(directory, (db) => {
    const { epoch, number } = readFence(db)
    const former = formerEpochs(db)
    return {
      epoch,
      number,
      position: new Positions(db).last,
      raised: lastEnded(db, MAX_LISTED_EPOCHS),
      witnesses: witnessesOf(db, fence).map(({ file, writerId, marks, isCopy }) => ({
        file,
        writerId,
        isCopy,
        judgement: judge(marks, { epoch, rows: countersOf(db, writerId), former }),
      })),
    }
  })
}

/**
 * Raises the fence, or purges one device. Resolves with the number of the fence.
 *
 * @throws {StoreError} when there is no database or no such device, or a server has the database open.
 */
export async function raiseFence(
  directory: string,
  command: RaiseCommand,
  fence?: WitnessDirectory,
): Promise<{ number: number }> {
  return withDatabase(directory, async (db) => {
    const raised = db.transaction((tx) => {
      const positions = new Positions(tx)
      const { device, reason, dropFallbackKeys, now } = command
      if (device === undefined) {
        const evidence = {
          reason,
          epochs: [],
          byCommand: true,
          ...(dropFallbackKeys !== undefined && { dropFallbackKeys }),
        }
        return raiseFenceRows(tx, positions, evidence, now)
      }
      const ref = existingDevice(tx, device)
      purgePools(tx, ref, fencePurge(dropFallbackKeys ?? false), now)
      signalDevice({ positions, wakes: new Wakes(new LatestPositions(tx)) }, tx, ref)
      positions.save(tx)
      return readFence(tx)
    })
    if (command.device === undefined) await recogniseCopies(witnessesOf(db, fence))
    return raised
  })
}

/**
 * Sets the witnesses to the counters of the database, after a deliberate restore. Resolves with the files; those that a
 * running process has open are unchanged.
 *
 * @throws {StoreError} when there is no database, or a server has it open.
 */
export async function adoptFence(directory: string, fence: WitnessPlace): Promise<readonly AdoptedWitness[]> {
  return withDatabase(directory, async (db) => {
    const { epoch } = readFence(db)
    const adopted: { file: string; adopted: boolean; writerId?: string }[] = []
    for (const { file, writerId } of witnessesOf(db, fence)) {
      const witness = Witness.take(file)
      await witness?.replace(marksOf(db, writerId, epoch)).finally(() => witness.close())
      adopted.push({ file, adopted: witness !== undefined, ...(witness && { writerId }) })
    }
    const writer = adopted.find((witness) => witness.adopted)?.writerId
    if (writer !== undefined) db.transaction((tx) => trustPresentPosition(tx, writer))
    return adopted.map(({ file, adopted: isAdopted }) => ({ file, adopted: isAdopted }))
  })
}

function trustPresentPosition(tx: Transaction, writerId: string): void {
  writeTrustedPosition(tx, { position: new Positions(tx).last, writtenTs: lastWriteTs(tx) })
  writeTrustedWriter(tx, writerId)
}

/** The witnesses of a database in the directory where they lie. */
export function witnessesOf(db: Reader, fence: WitnessDirectory): ReturnType<typeof listWitnesses> {
  if (fence === undefined) return []
  const database = databaseId(db)
  return listWitnesses({ directory: directoryOf(fence, database, readMeta(db, WITNESS_PLACE)), database })
}

function existingDevice(db: Reader, { userId, deviceId }: { userId: UserId; deviceId: DeviceId }): DeviceRef {
  const row = db.one<{ device_num: DeviceRef }>(
    `select device_num from devices join users using (user_num)
     where user_id = ? and device_id = ? and removed_ts is null`,
    userId,
    deviceId,
  )
  if (row === undefined) throw unknownDevice(userId, deviceId)
  return row.device_num
}

async function withDatabase<T>(directory: string, run: (db: Database) => T | Promise<T>): Promise<T> {
  const file = join(directory, 'latchkey.db')
  if (!existsSync(file)) throw new StoreError(`There is no database in ${directory}: ${file} does not exist.`)
  const lock = lockDirectory(directory)
  try {
    const db = openDatabase(directory)
    try {
      // A server that runs although its lock was deleted must not go on with what it has in memory.
      Owner.take(db, () => {})
      settleLog(db)
      return await run(db)
    } finally {
      db.close()
    }
  } finally {
    lock.close()
  }
}

/** Writes the issues that a crash left in the log into their rows. */
export function settleLog(db: Database): void {
  const keys = new KeyStates(db, readFence(db), 'upload')
  keys.reload()
  db.transaction((tx) => keys.settleAll(tx))
}
