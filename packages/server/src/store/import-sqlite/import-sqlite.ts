/**
 * `latchkey import sqlite`: an embedded installation into an empty PostgreSQL database, with everything that it remembers.
 *
 *     hold the source -> copy all, in one transaction -> read all back and compare -> mark the source as moved -> commit
 *
 * A source that has lost what it acknowledged is refused, and so is one that was moved elsewhere.
 * The mark stands before the commit: whatever ends the process in between, there are never two databases that can be
 * served. A marked source whose import did not end is imported again by the same command.
 */
import { Postgres, type PostgresOptions, type Queries } from '../postgres/database.ts'
import { asStoreError } from '../postgres/open-store.ts'
import { StoreError } from '../store-error.ts'
import { copyTable } from './copy-table.ts'
import { Source } from './source.ts'
import { analyze, continueHandles, copyStanding, prepareTarget } from './target.ts'
import { TABLE_COPIES } from './table-copy.ts'
import { verifyPools, verifyTable } from './verify.ts'
import { requireNothingLost } from './witnessed.ts'

export type ImportOptions = {
  /** `latchkey.db`, or the directory that has it. */
  readonly path: string
  readonly target: PostgresOptions
  /** The target's URL without its password, for the mark. */
  readonly targetName: string
  /** Does everything, and undoes it at the end. */
  readonly dryRun: boolean
  /** Leaves the source unmarked: whoever asks for it must not serve both. */
  readonly keepSource: boolean
  /** Where the source's server kept its witness, if not beside the database. */
  readonly fenceDirectory?: string
  /** Milliseconds since 1970. */
  readonly now: () => number
  readonly onProgress: (progress: ImportProgress) => void
}

export type ImportProgress = { readonly table: string; readonly copied: number; readonly rows: number }

export type ImportSummary = {
  readonly file: string
  /** Rows by table of PostgreSQL. */
  readonly rows: ReadonlyMap<string, number>
  readonly availableKeys: number
}

/**
 * @throws {StoreError} when the source or the target cannot be used, or something is not as it was read; the target is then
 *   as it was before, unless the message says that it is not known.
 */
export async function importSqlite(options: ImportOptions): Promise<ImportSummary> {
  const source = Source.open(options.path)
  const db = new Postgres({ ...options.target, connections: 1, patient: true })
  let marked = false
  try {
    requireSameTarget(source, options)
    requireNothingLost(source, options.fenceDirectory)
    return await db.transaction(async (tx) => {
      await prepareTarget(tx, source)
      const summary = await copyAll(source, tx, options)
      if (options.dryRun) throw new Rehearsed(summary)
      await analyze(tx)
      if (!options.keepSource) {
        source.markMoved({ to: options.targetName, ts: options.now() })
        marked = true
      }
      return summary
    })
  } catch (error) {
    if (error instanceof Rehearsed) return error.summary
    const failure = asStoreError(error, options.target)
    throw marked ? endUnknown(failure, source.file) : failure
  } finally {
    await db.close()
    source.close()
  }
}

/** Lets an embedded installation be served again that is marked as moved. Returns where it was moved. */
export function undoMove(path: string): { readonly file: string; readonly to: string } {
  const source = Source.open(path)
  try {
    const { move, file } = source
    if (move === undefined) throw new StoreError(`${file} is not marked as moved: there is nothing to undo.`)
    source.unmarkMoved()
    return { file, to: move.to }
  } finally {
    source.close()
  }
}

/** The end of a dry run: what it wrote is undone. */
class Rehearsed extends Error {
  readonly summary: ImportSummary

  constructor(summary: ImportSummary) {
    super('rehearsed')
    this.summary = summary
  }
}

async function copyAll(source: Source, tx: Queries, { onProgress }: ImportOptions): Promise<ImportSummary> {
  const copies = TABLE_COPIES.map((copy) => ({ copy, rows: copy.count(source.db) }))
  const fingerprints = []
  for (const { copy, rows } of copies) {
    const { table } = copy
    const fingerprint = await copyTable(source.db, tx, copy, (copied) => onProgress({ table, copied, rows }))
    if (fingerprint.rows !== rows)
      throw new Error(`${table} was to have ${rows} rows, and has ${fingerprint.rows}`)
    fingerprints.push({ copy, fingerprint })
  }
  await copyStanding(source, tx)
  await continueHandles(source.db, tx)
  for (const { copy, fingerprint } of fingerprints) await verifyTable(tx, copy, fingerprint)
  await verifyPools(source.db, tx)
  const available = source.db.one<{ n: number }>(`select coalesce(sum(count), 0) as n from pools`)
  return {
    file: source.file,
    rows: new Map(copies.map(({ copy, rows }) => [copy.table, rows])),
    availableKeys: available?.n ?? 0,
  }
}

/** An import that did not end leaves its mark; it can only be made again to the same database. */
function requireSameTarget({ file, move }: Source, { targetName }: ImportOptions): void {
  if (move === undefined || move.to === targetName) return
  throw new StoreError(
    `${file} was moved to ${move.to} already. If nobody has been served from there, take that back with "latchkey import sqlite ${file} --undo" first.`,
  )
}

function endUnknown(cause: unknown, file: string): StoreError {
  const said = cause instanceof Error ? cause.message : String(cause)
  return new StoreError(
    `The database did not say whether it has the import: ${said} Run the same command again: it says so, or imports anew. Until then ${file} stays marked as moved.`,
    { cause },
  )
}
