/**
 * The fence at the start, before any other read: takes the witness and compares the writes that it, and every other
 * witness in its directory, acknowledged with the counters of the database (fence/judge.ts). Raises the fence of a
 * database that was rolled back.
 */
import type { FenceEvent, OnFence } from '../../fence/events.ts'
import { judge } from '../../fence/judge.ts'
import { MatrixError } from '../../matrix-error.ts'
import { StoreError, unusableWitness } from '../store-error.ts'
import { describePlace, directoryOf, recordOf, WITNESS_PLACE, type WitnessPlace } from '../witness-place.ts'
import { Witness } from '../witness.ts'
import type { Database, Transaction } from './database.ts'
import {
  countersOf,
  databaseId,
  formerEpochs,
  hasHistory,
  lastWriteTs,
  marksOf,
  raiseFence,
  readFence,
} from './fence-rows.ts'
import { readMeta, writeMeta } from './meta.ts'
import { Positions } from './positions.ts'
import { readTrustedWriter, writeTrustedPosition, writeTrustedWriter } from './trusted-position.ts'

export type OpenFenceOptions = {
  /** The directory of the witness. Undefined: there is no witness, and writes are not counted. */
  readonly fence?: WitnessPlace
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly onFence: OnFence
}

/**
 * The witness of this process; undefined without one.
 *
 * @throws {StoreError} when its directory cannot be used.
 */
export async function openFence(db: Database, options: OpenFenceOptions): Promise<Witness | undefined> {
  const { fence, onFence } = options
  let witness: Witness | undefined
  try {
    const recorded = readMeta<string>(db, WITNESS_PLACE)
    const database = databaseId(db)
    witness = fence && Witness.open({ directory: directoryOf(fence, database, recorded), database })
    const judged = db.transaction((tx) => {
      moveTrustedPosition(tx, witness, options.now())
      const found = witness && judgeAtOpen(tx, witness, options)
      if (witness !== undefined) writeMeta(tx, WITNESS_PLACE, recordOf(witness))
      return found
    })
    if (fence?.isWithData === true && witness?.isNew === true)
      onFence({ kind: 'witness_with_data', file: witness.file })
    if (witness !== undefined) {
      // Once per place of the file, so that both hold the marks of this database.
      const marks = marksOf(db, witness.writerId, readFence(db).epoch)
      await witness.replace(marks)
      await witness.replace(marks)
    }
    for (const event of judged?.events ?? []) onFence(event)
    if (judged?.raised !== true) onFence({ kind: 'stands', number: readFence(db).number })
    return witness
  } catch (error) {
    witness?.close()
    throw fence === undefined ? error : asStoreError(error, fence.directory)
  }
}

/** Moves the trusted position to the end of the database if a witness has seen every write (trusted-position.ts). */
function moveTrustedPosition(tx: Transaction, witness: Witness | undefined, now: number): void {
  const isFirst = !hasHistory(tx)
  const writer = readTrustedWriter(tx)
  const hasSeenAll =
    writer !== undefined &&
    witness !== undefined &&
    [witness, ...witness.others()].some(({ writerId }) => writerId === writer)
  if (isFirst || hasSeenAll) {
    const writtenTs = isFirst ? now : lastWriteTs(tx)
    writeTrustedPosition(tx, { position: new Positions(tx).last, writtenTs })
    writeTrustedWriter(tx, witness?.writerId)
  } else writeTrustedWriter(tx, undefined)
}

type Judged = { readonly raised: boolean; readonly events: readonly FenceEvent[] }

/** Raises the fence if the database was rolled back; returns the events to report. */
function judgeAtOpen(tx: Transaction, witness: Witness, { now }: OpenFenceOptions): Judged {
  const isUnwitnessed = witness.isNew && hasHistory(tx)
  const last = describePlace(readMeta<string>(tx, WITNESS_PLACE))
  const events: FenceEvent[] = isUnwitnessed
    ? [{ kind: 'no_witness', file: witness.file, ...(last !== undefined && { last }) }]
    : []
  const { epoch } = readFence(tx)
  const former = formerEpochs(tx)
  const witnesses = [witness, ...witness.others()]
  const behind = witnesses
    .map(({ writerId, marks }) => ({
      writerId,
      judgement: judge(marks, { epoch, rows: countersOf(tx, writerId), former }),
    }))
    .find(({ judgement }) => judgement.kind === 'behind')
  if (behind?.judgement.kind !== 'behind') return { raised: false, events }
  const { acknowledged, found } = behind.judgement
  const who = behind.writerId === witness.writerId ? 'this process' : 'another process'
  const reason =
    found < acknowledged
      ? `${who} acknowledged write ${acknowledged}, the database has ${found}`
      : `${who} acknowledged write ${acknowledged} in an epoch that the database never had`
  const epochs = witnesses.flatMap(({ marks }) => [...marks.values()].map((mark) => mark.epoch))
  const { number, droppedFallbackKeys } = raiseFence(tx, new Positions(tx), { reason, epochs }, now())
  writeTrustedWriter(tx, witness.writerId)
  return { raised: true, events: [...events, { kind: 'raised', number, reason, droppedFallbackKeys }] }
}

function asStoreError(error: unknown, directory: string): StoreError {
  if (error instanceof StoreError) return error
  const cause = error instanceof MatrixError && error.cause instanceof Error ? error.cause : error
  return unusableWitness(directory, error, cause)
}
