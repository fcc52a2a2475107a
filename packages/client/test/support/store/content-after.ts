/** A known history: the changes of each generation of a store, and its content after them. */
import type { Changes } from '../../../src/store/store.ts'

/** Puts a record, replaces one, and deletes one, of sizes that make some writes span pages. */
export function changesOf(generation: number): Changes {
  return new Map([
    [`new${generation}`, `${generation}:`.repeat(generation % 7 === 0 ? 3000 : 5)],
    [`slot${generation % 5}`, String(generation)],
    [`new${generation - 10}`, undefined],
  ])
}

export function contentAfter(generation: number): Map<string, string> {
  const content = new Map<string, string>()
  for (let i = 1; i <= generation; i++) {
    for (const [key, text] of changesOf(i)) {
      if (text === undefined) content.delete(key)
      else content.set(key, text)
    }
  }
  return content
}
