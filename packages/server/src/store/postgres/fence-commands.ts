/** `latchkey fence` on PostgreSQL. Servers may be running: they notice a raise within one second. */
import { judge } from '../../fence/judge.ts'
import {
  type AdoptedWitness,
  type FenceStatus,
  MAX_LISTED_EPOCHS,
  type RaiseCommand,
} from '../../fence/status.ts'
import type { Position } from '../../session.ts'
import { StoreError, unknownDevice } from '../store-error.ts'
import { directoryOf, type WitnessPlace } from '../witness-place.ts'
import { listWitnesses, recogniseCopies, Witness } from '../witness.ts'
import { Changes } from './changes.ts'
import { Postgres, type PostgresOptions, type Queries, type Transaction } from './database.ts'
import type { LockedDeviceRef } from './locks.ts'
import { databaseId, recordedPlace } from './meta.ts'
import { asStoreError } from './open-store.ts'
import { fencePurge } from '../../pool/purge.ts'
import { purgePools } from './purge-pools.ts'
import { type FenceRow, raiseFence } from './raise-fence.ts'
import { requireSchema, schemaOf } from './schema.ts'

type WitnessDirectory = WitnessPlace | undefined

/** @throws {StoreError} when the database cannot be used. */
export function postgresFenceStatus(options: PostgresOptions, fence: WitnessDirectory): Promise<FenceStatus> {
  return withDatabase(options, async (db) => {
    const stream = await readStream(db)
    const raised = await db.all<FenceStatus['raised'][number]>(
      `select epoch, ended_ts as "endedTs", reason, end_pos as "endPosition"
       from former_epochs order by end_pos desc, ended_ts desc limit ${MAX_LISTED_EPOCHS}`,
    )
    const witnesses = await witnessesOf(db, fence)
    const former = await db.all<{ epoch: string }>(`select epoch from former_epochs`)
    const ended = new Set(former.map(({ epoch }) => epoch))
    return {
      epoch: stream.epoch,
      number: stream.fence,
      position: stream.position,
      raised,
      witnesses: await Promise.all(
        witnesses.map(async ({ file, writerId, marks, isCopy }) => ({
          file,
          writerId,
          isCopy,
          judgement: judge(marks, {
            epoch: stream.epoch,
            rows: await countersOf(db, writerId),
            former: ended,
          }),
        })),
      ),
    }
  })
}

/**
 * Raises the fence, or purges the pools of one device. Resolves with the number of the fence.
 *
 * @throws {StoreError} when the database cannot be used, or has no such device.
 */
export function raisePostgresFence(
  options: PostgresOptions,
  { reason, device, dropFallbackKeys, now }: RaiseCommand,
  fence?: WitnessDirectory,
): Promise<{ readonly number: number }> {
  return withDatabase(options, async (db) => {
    const result = await db.transaction(async (tx) => {
      if (device !== undefined) {
        await purgeDevice(tx, device, dropFallbackKeys ?? false, now)
        return { number: (await readStream(tx)).fence }
      }
      const raised = await raiseFence(tx, async ({ position }) => ({
        reason,
        epochs: [],
        position,
        byCommand: true,
        ...(dropFallbackKeys !== undefined && { dropFallbackKeys }),
      }))
      return { number: raised?.fence ?? 0 }
    })
    if (device === undefined) await recogniseCopies(await witnessesOf(db, fence))
    return result
  })
}

/**
 * Sets the witnesses in the directory to the counters of the database, after a deliberate restore.
 *
 * @throws {StoreError} when the database cannot be used.
 */
export function adoptPostgresFence(
  options: PostgresOptions,
  fence: WitnessPlace,
): Promise<readonly AdoptedWitness[]> {
  return withDatabase(options, async (db) => {
    const { epoch } = await readStream(db)
    const adopted: AdoptedWitness[] = []
    for (const { file } of await witnessesOf(db, fence)) {
      const witness = Witness.take(file)
      if (witness !== undefined) {
        const rows = await countersOf(db, witness.writerId)
        const marks = new Map([...rows].map(([lane, n]) => [lane, { n, epoch }]))
        await witness.replace(marks).finally(() => witness.close())
      }
      adopted.push({ file, adopted: witness !== undefined })
    }
    return adopted
  })
}

/** Purges the pools of one device, as after a raise (purge-stale-pools.ts). */
async function purgeDevice(
  tx: Transaction,
  { userId, deviceId }: NonNullable<RaiseCommand['device']>,
  dropFallbackKeys: boolean,
  now: number,
): Promise<void> {
  const row = await tx.one<{ device_num: LockedDeviceRef }>(
    `select device_num from devices join users using (user_num)
     where user_id = $1 and device_id = $2 and removed_ts is null for no key update of devices`,
    userId,
    deviceId,
  )
  if (row === undefined) throw unknownDevice(userId, deviceId)
  const { device_num: device } = row
  await purgePools(tx, [device], fencePurge(dropFallbackKeys), now)
  const changes = new Changes()
  changes.signal(device)
  await changes.finish(tx, now)
}

async function readStream(db: Queries): Promise<Pick<FenceRow, 'epoch' | 'fence' | 'position'>> {
  const row = await db.one<{ epoch: string; fence: number; position: Position }>(
    `select epoch, fence, pos as position from stream`,
  )
  if (row === undefined) throw new StoreError('The database is empty: no server has used it yet.')
  return row
}

async function witnessesOf(db: Queries, fence: WitnessDirectory): Promise<ReturnType<typeof listWitnesses>> {
  if (fence === undefined) return []
  const database = await databaseId(db)
  return listWitnesses({ directory: directoryOf(fence, database, await recordedPlace(db)), database })
}

async function countersOf(db: Queries, writerId: string): Promise<Map<number, number>> {
  const rows = await db.all<{ lane: number; n: number }>(
    `select lane, n from writers where writer_id = $1`,
    writerId,
  )
  return new Map(rows.map(({ lane, n }) => [lane, n]))
}

async function withDatabase<T>(options: PostgresOptions, run: (db: Postgres) => Promise<T>): Promise<T> {
  const db = new Postgres({ ...options, connections: 2, patient: true })
  try {
    const version = await schemaOf(db)
    if (version === 0) throw new StoreError('The database is empty: no server has used it yet.')
    requireSchema(version)
    return await run(db)
  } catch (error) {
    throw asStoreError(error, options)
  } finally {
    await db.close()
  }
}
