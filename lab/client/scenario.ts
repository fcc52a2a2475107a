/** What a scenario is, and what it has to show: trouble without the library, none with it. */
import type { Tally } from './mailbox.ts'
import type { Stage } from './stage.ts'

export type Outcome = Tally & {
  /** Numbers or words that this scenario is about, for its line of the table. */
  readonly notes: readonly string[]
  /** What should be so with the library, and is not. Empty without it. */
  readonly failures: readonly string[]
}

/** What a scenario returns; `failures` are its own expectations beside those of every scenario. */
export type Result = Tally & { readonly notes?: readonly string[]; readonly failures?: readonly string[] }

export type Scenario = {
  /** For `--only`. */
  readonly name: string
  readonly client: 'libolm' | 'OlmMachine' | 'js-sdk 43.0' | 'js-sdk 42.3'
  /** What happens, in one sentence. */
  readonly story: string
  /** What is wrong without the library, in a few words. */
  readonly trouble: string
  /** Whether that trouble shows. */
  readonly shows: (without: Result) => boolean
  /** With the library: why what is lost was lost. Without this, nothing may be lost. */
  readonly lostBecause?: string
  /** Sets the server back, which nobody else may be on. */
  readonly ownsServer?: boolean
  /** Longer than what a test run should wait for. */
  readonly isSlow?: boolean
  readonly run: (stage: Stage) => Promise<Result>
}

/** What holds for every scenario with the library. */
export function failuresOf({ lostBecause }: Scenario, result: Result): string[] {
  const wrong = result.lost.filter(
    ({ cause }) => lostBecause === undefined || cause?.includes(lostBecause) !== true,
  )
  const unexplained = result.lost.filter(({ cause }) => cause === undefined)
  return [
    ...(result.undecryptable > 0 ? [`${result.undecryptable} undecryptable`] : []),
    ...wrong.map(
      ({ text, cause }) =>
        `"${text}" was lost: ${cause ?? 'nobody knows why'}; expected ${lostBecause ?? 'no loss'}`,
    ),
    ...(result.unexplained > unexplained.length ? [`${result.unexplained} failures without a cause`] : []),
    ...(result.readTwice > 0 ? [`${result.readTwice} read twice`] : []),
    ...(result.orphans > 0 ? [`the server would issue ${result.orphans} keys without a private half`] : []),
    ...(result.failures ?? []),
  ]
}

export async function runScenario(scenario: Scenario, stage: Stage): Promise<Outcome> {
  const result = await scenario.run(stage)
  return {
    ...result,
    notes: result.notes ?? [],
    failures: stage.hasLibrary ? failuresOf(scenario, result) : [],
  }
}
