/**
 * `latchkey import sqlite`: imports an embedded installation, with all its records, into an empty PostgreSQL database.
 *
 *     lock the source -> copy all in one transaction -> read it back and compare -> mark the source as moved -> commit
 *
 * Refuses a source that has lost acknowledged writes, and a source that was moved elsewhere. The source is marked
 * before the commit, so that there are never two databases that can be served, even if the process is killed in
 * between. The same command imports a marked source again whose import did not finish.
 */
import { Postgres, type PostgresOptions, type Transaction } from '../postgres/database.ts'
import { asStoreError } from '../postgres/open-store.ts'
import { StoreError } from '../store-error.ts'
import { copyTable } from './copy-table.ts'
import { Source } from './source.ts'
import { analyze, continueHandles, copyInstallation, prepareTarget } from './target.ts'
import { TABLE_COPIES } from './table-copy.ts'
import { verifyPools, verifyTable } from './verify.ts'
import { requireNothingLost } from './witnessed.ts'

export type ImportOptions = {
  /** `latchkey.db`, or its directory. */
  readonly path: string
  readonly target: PostgresOptions
  /** The target's URL without its password, for the marker. */
  readonly targetName: string
  /** Runs the whole import and rolls it back at the end. */
  readonly dryRun: boolean
  /** Leaves the source unmarked: the operator must not serve both. */
  readonly keepSource: boolean
  /** Where the source's witness may be, apart from the directory of the database. */
  readonly fenceDirectories?: readonly string[]
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
 * @throws {StoreError} when the source or the target cannot be used, or the copy differs from the source. The target is
 *   then unchanged, unless the message says that its state is not known.
 */
export async function importSqlite(options: ImportOptions): Promise<ImportSummary> {
  const source = Source.open(options.path)
  const db = new Postgres({ ...options.target, connections: 1, patient: true })
  let marked = false
  try {
    requireSameTarget(source, options)
    requireNothingLost(source, options)
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

/** Removes the marker of a moved embedded installation, so that it can be served again. Returns where it was moved. */
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

/** The end of a dry run: rolls back its writes. */
class Rehearsed extends Error {
  readonly summary: ImportSummary

  constructor(summary: ImportSummary) {
    super('rehearsed')
    this.summary = summary
  }
}

async function copyAll(
  source: Source,
  tx: Transaction,
  { onProgress }: ImportOptions,
): Promise<ImportSummary> {
  const copies = TABLE_COPIES.map((copy) => ({ copy, rows: copy.count(source.db) }))
  const fingerprints = []
  for (const { copy, rows } of copies) {
    const { table } = copy
    const fingerprint = await copyTable(source.db, tx, copy, (copied) => onProgress({ table, copied, rows }))
    if (fingerprint.rows !== rows)
      throw new Error(`${table} has ${fingerprint.rows} copied rows, expected ${rows}`)
    fingerprints.push({ copy, fingerprint })
  }
  await copyInstallation(source, tx)
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

/** An import that did not finish leaves its marker: it can only be repeated into the same database. */
function requireSameTarget({ file, move }: Source, { targetName }: ImportOptions): void {
  if (move === undefined || move.to === targetName) return
  throw new StoreError(
    `${file} was moved to ${move.to} already. If no client was served from there, undo that with "latchkey import sqlite ${file} --undo" first.`,
  )
}

function endUnknown(cause: unknown, file: string): StoreError {
  const said = cause instanceof Error ? cause.message : String(cause)
  return new StoreError(
    `The database did not confirm the import: ${said} Run the same command again: it reports an import that was committed, or imports again. Until then ${file} stays marked as moved.`,
    { cause },
  )
}
