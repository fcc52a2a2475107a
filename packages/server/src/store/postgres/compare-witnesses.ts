/** The comparison of witnesses with the counters of the database (fence/judge.ts has the rule). */
import { type Judgement, judge, type Marks } from '../../fence/judge.ts'
import { unavailable } from '../../matrix-error.ts'
import type { Queries } from './database.ts'
import type { Evidence } from './raise-fence.ts'
import { SERVER_START } from './verified-starts.ts'

/** The acknowledged writes of one process. */
export type Witnessed = { readonly writerId: string; readonly marks: Marks }

/** The state of the database, compared with the witnesses. */
export type Comparison = {
  readonly epoch: string
  /** How often the fence was raised. */
  readonly fence: number
  /** The database server's start. */
  readonly start: string
  /** Counters of this process, by lane. */
  readonly rows: ReadonlyMap<number, number>
  /** Why the fence must be raised; undefined if the database has all acknowledged writes. */
  readonly evidence: Pick<Evidence, 'reason' | 'epochs'> | undefined
}

type Row = {
  readonly epoch: string
  readonly fence: number
  readonly standby: boolean
  readonly start: string
  readonly rows: readonly (readonly [writerId: string, lane: number, n: number])[]
  readonly former: readonly string[]
}

/**
 * @param own the witness of this process; its marks must not change later
 * @throws {MatrixError} 503 on a standby, because writes that it lacks may still arrive
 */
export async function compareWitnesses(
  db: Queries,
  own: Witnessed,
  others: readonly Witnessed[],
): Promise<Comparison> {
  const witnesses = [own, ...others]
  const epochs = witnesses.flatMap(({ marks }) => [...marks.values()].map(({ epoch }) => epoch))
  const row = await db.one<Row>(
    `select epoch, fence, pg_is_in_recovery() as standby, ${SERVER_START} as start,
       (select coalesce(json_agg(json_build_array(writer_id, lane, n)), '[]')
        from writers where writer_id = any($1::text[])) as rows,
       (select coalesce(json_agg(epoch), '[]') from former_epochs where epoch = any($2::text[])) as former
     from stream`,
    witnesses.map(({ writerId }) => writerId),
    [...new Set(epochs)],
  )
  if (row === undefined) throw new Error('the stream has no row')
  if (row.standby) throw unavailable('The database is a standby, which cannot be written to.')
  const { epoch, fence, start } = row
  return { epoch, fence, start, rows: countersOf(row, own), evidence: evidenceIn(row, witnesses, epochs) }
}

function countersOf({ rows }: Row, { writerId }: Witnessed): ReadonlyMap<number, number> {
  return new Map(rows.filter(([writer]) => writer === writerId).map(([, lane, n]) => [lane, n]))
}

function evidenceIn(
  row: Row,
  witnesses: readonly Witnessed[],
  epochs: readonly string[],
): Comparison['evidence'] {
  const former = new Set(row.former)
  const judgements = witnesses.map((witness) =>
    judge(witness.marks, { epoch: row.epoch, rows: countersOf(row, witness), former }),
  )
  const behind = judgements.findIndex(({ kind }) => kind === 'behind')
  if (behind === -1) return undefined
  return { reason: describe(judgements[behind], behind === 0 ? 'this process' : 'another process'), epochs }
}

function describe(judgement: Judgement | undefined, writer: string): string {
  if (judgement?.kind !== 'behind') return 'the database was rolled back'
  const { lane, acknowledged, found } = judgement
  return found < acknowledged
    ? `${writer} acknowledged write ${acknowledged} of its lane ${lane}, the database has ${found}`
    : `${writer} acknowledged a write in an epoch that the database never had`
}
