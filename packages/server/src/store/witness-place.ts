/** The directory of a database's witness, and its record in the database (config/witness-places.ts has the order). */
import { dirname } from 'node:path'
import { listWitnesses, type Witness } from './witness.ts'

export type WitnessPlace = {
  /** Where a new witness is created. */
  readonly directory: string
  /** Where a witness of the database may lie already. */
  readonly searched?: readonly string[]
  /** Whether `directory` is the data directory by default. */
  readonly isWithData?: boolean
}

/** The key in `meta` of the witness that last opened the database. */
export const WITNESS_PLACE = 'witness_place'

/**
 * The directory that has a witness of this database; the one for a new witness if none has.
 *
 * @param recorded the value of `WITNESS_PLACE`
 */
export function directoryOf(place: WitnessPlace, database: string, recorded: string | undefined): string {
  const { directory, searched = [] } = place
  if (searched.length === 0) return directory
  const known = recorded === undefined ? [] : [dirname(fileOf(recorded))]
  const found = [...known, ...searched].find(
    (candidate) => listWitnesses({ directory: candidate, database }).length > 0,
  )
  return found ?? directory
}

/** The value of `WITNESS_PLACE`: host, file and identity of a witness. */
export function recordOf(witness: Witness): string {
  const { host, inode, born, device, boot } = witness.identity
  return JSON.stringify({ file: witness.file, host, inode, born, device, boot })
}

function fileOf(recorded: string): string {
  return (JSON.parse(recorded) as { file: string }).file
}

/** The recorded place for a message. */
export function describePlace(recorded: string | undefined): string | undefined {
  if (recorded === undefined) return undefined
  const { file, host } = JSON.parse(recorded) as { file: string; host: string }
  return `${file} on ${host}`
}
