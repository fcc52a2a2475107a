/**
 * The fence at the start, before anything else reads: takes the witness and compares what it acknowledged with what the
 * database counts (fence/judge.ts). A database that went back is fenced here.
 */
import type { OnFence } from '../../fence/events.ts'
import { judge } from '../../fence/judge.ts'
import { MatrixError } from '../../matrix-error.ts'
import { StoreError } from '../store-error.ts'
import { Witness } from '../witness.ts'
import type { Database } from './database.ts'
import {
  countersOf,
  databaseId,
  formerEpochs,
  hasHistory,
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
    const judged = witness && judgeAtOpen(db, witness, options)
    if (witness !== undefined) {
      // Both of its places: they have their room on the disk from here on.
      const marks = marksOf(db, witness.writerId, readFence(db).epoch)
      await witness.replace(marks)
      await witness.replace(marks)
    }
    if (judged !== 'raised') onFence({ kind: 'stands', number: readFence(db).number })
    return witness
  } catch (error) {
    witness?.close()
    throw fence === undefined ? error : asStoreError(error, fence.directory)
  }
}

/** Tells what it has to tell, and raises the fence if the database went back. */
function judgeAtOpen(db: Database, witness: Witness, options: OpenFenceOptions): 'raised' | 'stands' {
  const { now, onFence } = options
  if (witness.isNew) {
    if (hasHistory(db)) onFence({ kind: 'no_witness', file: witness.file })
    return 'stands'
  }
  const { epoch } = readFence(db)
  const rows = countersOf(db, witness.writerId)
  const judgement = judge(witness.marks, { epoch, rows, former: formerEpochs(db) })
  if (judgement.kind !== 'behind') return 'stands'
  const { acknowledged, found } = judgement
  const reason =
    found < acknowledged
      ? `this process acknowledged write ${acknowledged}, the database has ${found}`
      : `this process acknowledged write ${acknowledged} in an epoch that the database never had`
  const epochs = [...witness.marks.values()].map((mark) => mark.epoch)
  const { number, droppedFallbackKeys } = db.transaction(() =>
    raiseFence(db, new Positions(db), { reason, epochs }, now()),
  )
  onFence({ kind: 'raised', number, reason, droppedFallbackKeys })
  return 'raised'
}

function asStoreError(error: unknown, directory: string): StoreError {
  if (error instanceof StoreError) return error
  const cause = error instanceof MatrixError && error.cause instanceof Error ? error.cause : error
  return new StoreError(
    `The fence cannot keep its witness in ${directory}: ${String(cause)}. Mend that, or name another --fence-dir.`,
    { cause: error },
  )
}
