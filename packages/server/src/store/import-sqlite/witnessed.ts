/**
 * The check that the embedded installation has all its acknowledged writes. PostgreSQL does not have its witnesses, so
 * the import is the last chance to read them: a source that was rolled back would issue keys again (fence/judge.ts).
 */
import { dirname } from 'node:path'
import { judge } from '../../fence/judge.ts'
import { StoreError } from '../store-error.ts'
import { listWitnesses, requireOriginals } from '../witness.ts'
import type { Source } from './source.ts'

/**
 * @param fenceDirectories where its witness may be, apart from the directory of the database
 * @param dryRun allows copies of witnesses: a rehearsal may use a copy of the data directory
 * @throws {StoreError} when a witness is ahead of the database, or was copied or restored.
 */
export function requireNothingLost(
  source: Source,
  {
    fenceDirectories = [],
    dryRun,
  }: { readonly fenceDirectories?: readonly string[]; readonly dryRun: boolean },
): void {
  const database = source.meta('database_id')
  if (typeof database !== 'string') return
  const directories = new Set([dirname(source.file), ...fenceDirectories])
  for (const directory of directories) {
    const witnesses = listWitnesses({ directory, database })
    if (!dryRun) requireOriginals(witnesses)
    for (const { file, writerId, marks } of witnesses) {
      const judgement = judge(marks, source.counted(writerId))
      if (judgement.kind !== 'behind') continue
      throw new StoreError(
        `${source.file} was rolled back: according to ${file}, its server acknowledged write ${judgement.acknowledged}, but it has ${judgement.found}. Start its server once, so that it raises the fence; or, if you know that nothing was lost, run "latchkey fence adopt" on it. Nothing was imported.`,
      )
    }
  }
}
