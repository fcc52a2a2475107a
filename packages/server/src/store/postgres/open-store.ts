/**
 * Opens the PostgreSQL store: connects, checks the schema, verifies the fence and begins to listen for notifications.
 * Any number of processes may have the same database open.
 */
import { randomBytes } from 'node:crypto'
import { MatrixError } from '../../matrix-error.ts'
import type { OnFence } from '../../fence/events.ts'
import type { DepletionDefence } from '../../pool/depletion.ts'
import type { PoolPolicy } from '../../pool/policy.ts'
import type { Store } from '../../store.ts'
import { AdvertisedCounts } from '../advertised-counts.ts'
import type { RowLimits } from '../row-limits.ts'
import { StoreError, unusableWitness } from '../store-error.ts'
import { describePlace, directoryOf, recordOf, type WitnessPlace } from '../witness-place.ts'
import { Witness } from '../witness.ts'
import { ClaimBatcher } from './claim-batcher.ts'
import { Claimers } from './claimers.ts'
import type { Core } from './core.ts'
import { Postgres, type PostgresOptions } from './database.ts'
import { DigestCache } from './digests.ts'
import { Fence } from './fence.ts'
import { AddedTransactions } from '../../messages/transaction-memory.ts'
import { Inboxes } from './inboxes.ts'
import { LastSeen } from './last-seen.ts'
import { databaseId, recordedPlace, recordPlace, readOrCreateMeta } from './meta.ts'
import { Notifier } from './notifier.ts'
import type { AdvertisedPools } from './pool-status.ts'
import { KNOWN_SCHEMA, migrate, requireSchema, schemaOf } from './schema.ts'
import { storeOver } from './store-over.ts'
import { startSweeping } from './sweep.ts'

export type PostgresStoreOptions = PostgresOptions &
  RowLimits & {
    readonly pools: PoolPolicy
    /** Undefined: claims are not limited. */
    readonly depletion?: DepletionDefence
    /** How long the details of removed keys, and removed devices, are kept. */
    readonly retentionMs: number
    /** The directory of this process's witness. Undefined: writes are not witnessed (fence.ts). */
    readonly fence?: WitnessPlace
    readonly onFence?: OnFence
    /** Whether to set up an empty database; by default true. */
    readonly create?: boolean
    /** Milliseconds since 1970. */
    readonly now: () => number
  }

/**
 * Sets up an empty database. A database with an older schema is refused until `latchkey migrate`.
 *
 * @throws {StoreError} when the database cannot be reached, or has another schema than this program's.
 */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<Store> {
  const { now, onFence = () => {} } = options
  const opened: { fence?: Fence; witness?: Witness } = {}
  const db = new Postgres(options, async (connection) => opened.fence?.verify(connection))
  const notifier = new Notifier(db, now, (stream) => opened.fence?.notePolled(db, stream))
  const close = async (): Promise<void> => {
    await notifier.close()
    await db.close()
    opened.witness?.close()
  }
  try {
    await prepareSchema(db, options.create ?? true)
    const claimers = new Claimers(db)
    const inboxes = new Inboxes(options)
    const advertised = new AdvertisedCounts<AdvertisedPools>()
    const digests = new DigestCache()
    const witness = options.fence && (await openWitness(db, options.fence, onFence))
    if (witness !== undefined) opened.witness = witness
    const fence = new Fence({
      witness,
      otherWitnesses: () => witness?.others() ?? [],
      connections: options.connections,
      onFence,
      onNewEpoch: () => notifier.notifyAll(),
      forget() {
        for (const memory of [claimers, inboxes, advertised, digests]) memory.forgetAll()
      },
    })
    await db.withConnection((connection) => fence.verify(connection))
    opened.fence = fence
    await notifier.start()
    const core: Core = {
      db,
      fence,
      notifier,
      advertised,
      digests,
      inboxes,
      addedTransactions: new AddedTransactions(),
      lastSeen: new LastSeen(db),
      policy: options.pools,
      depletion: options.depletion,
      limits: options,
      now,
    }
    const tokenSecret = await readOrCreateMeta(db, 'token_secret', () =>
      randomBytes(32).toString('base64url'),
    )
    const claims = new ClaimBatcher(core, claimers)
    const stopSweeping = startSweeping(core, options.retentionMs, now)
    return storeOver(core, claims, tokenSecret, async () => {
      stopSweeping()
      await core.lastSeen.write()
      await close()
    })
  } catch (error) {
    await close()
    throw asStoreError(error, options)
  }
}

/** Reports a missing witness if the database was written to, because earlier lost writes cannot be detected. */
async function openWitness(db: Postgres, place: WitnessPlace, onFence: OnFence): Promise<Witness> {
  const recorded = await recordedPlace(db)
  const database = await databaseId(db)
  const witness = openIn(directoryOf(place, database, recorded), database)
  await recordPlace(db, recordOf(witness))
  if (!witness.isNew) return witness
  if (place.isWithData === true) onFence({ kind: 'witness_with_data', file: witness.file })
  const last = describePlace(recorded)
  await witness.replace(witness.marks)
  const stream = await db.one<{ pos: number }>(`select pos from stream`)
  if (stream !== undefined && stream.pos > 0)
    onFence({ kind: 'no_witness', file: witness.file, ...(last !== undefined && { last }) })
  return witness
}

function openIn(directory: string, database: string): Witness {
  try {
    return Witness.open({ directory, database })
  } catch (error) {
    if (error instanceof StoreError) throw error
    throw unusableWitness(directory, error)
  }
}

/**
 * `latchkey migrate`: brings a database to the schema of this program; with `dryRun` it only returns the numbers.
 *
 * @throws {StoreError} as `openPostgresStore`.
 */
export async function migratePostgres(
  options: PostgresOptions,
  { dryRun }: { readonly dryRun: boolean },
): Promise<{ readonly from: number; readonly to: number }> {
  const db = new Postgres({ ...options, connections: 1, patient: true })
  try {
    if (!dryRun) return await migrate(db)
    const from = await schemaOf(db)
    if (from > KNOWN_SCHEMA) requireSchema(from)
    return { from, to: KNOWN_SCHEMA }
  } catch (error) {
    throw asStoreError(error, options)
  } finally {
    await db.close()
  }
}

async function prepareSchema(db: Postgres, create: boolean): Promise<void> {
  const version = await schemaOf(db)
  if (version === 0 && !create) {
    throw new StoreError(
      'The database has no tables of Latchkey. Check the database and its schema, or set them up with --create.',
    )
  }
  if (version === 0) await migrate(db)
  else requireSchema(version)
  await db.run(
    `insert into stream (epoch) values ($1) on conflict do nothing`,
    randomBytes(12).toString('base64url'),
  )
}

/** A fault at the start as an error for the operator, without the password of the URL. */
export function asStoreError(error: unknown, { url }: PostgresOptions): unknown {
  if (!(error instanceof MatrixError)) return error
  const { host, pathname } = new URL(url)
  const { cause } = error
  const reason = cause instanceof Error ? cause.message || String(cause) : error.message
  return new StoreError(`The database ${pathname.slice(1)} on ${host} cannot be used: ${reason}.`, {
    cause: error,
  })
}
