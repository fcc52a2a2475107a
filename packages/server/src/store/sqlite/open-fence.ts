/**
 * The fence at the start, before anything else reads: takes the witness and compares what it acknowledged, and every other
 * one in its directory, with what the database counts (fence/judge.ts). A database that went back is fenced here.
 */
import type { FenceEvent, OnFence } from '../../fence/events.ts'
import { judge } from '../../fence/judge.ts'
import { MatrixError } from '../../matrix-error.ts'
import { StoreError } from '../store-error.ts'
import { Witness } from '../witness.ts'
import { certainWriter, writeCertain, writeCertainWriter } from './certain.ts'
import type { Database } from './database.ts'
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
import { Positions } from './positions.ts'

export type OpenFenceOptions = {
  /** Where the witness is kept. Undefined: there is none, and writes are not counted. */
  readonly fence?: { readonly directory: string }
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
    witness = fence && Witness.open({ ...fence, database: databaseId(db) })
    const judged = db.transaction(() => {
      noteCertain(db, witness, options.now())
      return witness && judgeAtOpen(db, witness, options)
    })
    if (witness !== undefined) {
      // Both of its places: they have their room on the disk from here on.
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

/** Whether it is certain how the database stands, and what is so from here on (certain.ts). */
function noteCertain(db: Database, witness: Witness | undefined, now: number): void {
  const isFirst = !hasHistory(db)
  const writer = certainWriter(db)
  const hasSeenAll =
    writer !== undefined &&
    witness !== undefined &&
    [witness, ...witness.others()].some(({ writerId }) => writerId === writer)
  if (isFirst || hasSeenAll) {
    const writtenTs = isFirst ? now : lastWriteTs(db)
    writeCertain(db, { position: new Positions(db).last, writtenTs })
    writeCertainWriter(db, witness?.writerId)
  } else writeCertainWriter(db, undefined)
}

type Judged = { readonly raised: boolean; readonly events: readonly FenceEvent[] }

/** What there is to tell; raises the fence if the database went back. Inside a transaction. */
function judgeAtOpen(db: Database, witness: Witness, { now }: OpenFenceOptions): Judged {
  const isUnwitnessed = witness.isNew && hasHistory(db)
  const events: FenceEvent[] = isUnwitnessed ? [{ kind: 'no_witness', file: witness.file }] : []
  const { epoch } = readFence(db)
  const former = formerEpochs(db)
  const witnesses = [witness, ...witness.others()]
  const behind = witnesses
    .map(({ writerId, marks }) => ({
      writerId,
      judgement: judge(marks, { epoch, rows: countersOf(db, writerId), former }),
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
  const { number, droppedFallbackKeys } = raiseFence(db, new Positions(db), { reason, epochs }, now())
  writeCertainWriter(db, witness.writerId)
  return { raised: true, events: [...events, { kind: 'raised', number, reason, droppedFallbackKeys }] }
}

function asStoreError(error: unknown, directory: string): StoreError {
  if (error instanceof StoreError) return error
  const cause = error instanceof MatrixError && error.cause instanceof Error ? error.cause : error
  return new StoreError(
    `The fence cannot keep its witness in ${directory}: ${String(cause)}. Mend that, or name another --fence-dir.`,
    { cause: error },
  )
}
