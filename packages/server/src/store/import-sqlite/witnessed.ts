/**
 * Whether the embedded installation has all that it acknowledged. PostgreSQL knows none of its witnesses, so the import is
 * the last who can ask them: a source that went back would issue once more what it had issued (fence/judge.ts).
 */
import { dirname } from 'node:path'
import { judge } from '../../fence/judge.ts'
import { StoreError } from '../store-error.ts'
import { listWitnesses } from '../witness.ts'
import type { Source } from './source.ts'

/**
 * @param fenceDirectory where its server kept the witness, if not beside the database
 * @throws {StoreError} when a witness is ahead of it
 */
export function requireNothingLost(source: Source, fenceDirectory: string | undefined): void {
  const database = source.meta('database_id')
  if (typeof database !== 'string') return
  const directories = new Set([
    dirname(source.file),
    ...(fenceDirectory === undefined ? [] : [fenceDirectory]),
  ])
  for (const directory of directories) {
    for (const { file, writerId, marks } of listWitnesses({ directory, database })) {
      const judgement = judge(marks, source.counted(writerId))
      if (judgement.kind !== 'behind') continue
      throw new StoreError(
        `${source.file} went back: by ${file} its server acknowledged write ${judgement.acknowledged}, it has ${judgement.found}. Start its server once, so that it raises the fence; or, if you know that nothing was lost, run "latchkey fence adopt" on it. Nothing was imported.`,
      )
    }
  }
}
