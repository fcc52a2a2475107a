/** Replaces one line of a source text. */
import type { Mutant } from './mutants.ts'

/** @throws {Error} when the line is not in the text exactly once. */
export function mutate(source: string, { file, line, replacement }: Mutant): string {
  const lines = source.split('\n')
  const places = lines.flatMap((text, place) => (text.trim() === line ? [place] : []))
  const [place] = places
  if (place === undefined || places.length > 1)
    throw new Error(`${file} has ${places.length} lines "${line}", expected one`)
  return lines.with(place, replacement).join('\n')
}
