/** Loads one module of the domain with the fault that MUTANT names; no file is written. For `node --import`. */
import { registerHooks } from 'node:module'
import { mutate } from './mutate.ts'
import type { Mutant } from './mutants.ts'

const { MUTANT } = process.env

if (MUTANT !== undefined) {
  const mutant = JSON.parse(MUTANT) as Mutant
  const mutated = new URL(`../../packages/server/src/${mutant.file}`, import.meta.url).href
  registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      if (url !== mutated) return loaded
      const { source } = loaded
      const text = typeof source === 'string' ? source : new TextDecoder().decode(source)
      return { ...loaded, source: mutate(text, mutant) }
    },
  })
}
