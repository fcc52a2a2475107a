/** What a scenario is, and what it has to show: trouble without the library, none with it. */
import type { HealCause } from '@latchkey/client'
import type { Heals } from './device.ts'
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
  /** With the library: why it cannot say the cause of what is lost. Every loss is expected to be one of these. */
  readonly inexplicable?: string
  /** With the library: what it healed, by its events and its history. Without this, nothing may have needed a heal. */
  readonly heals?: readonly HealCause[]
  /** Sets the server back, which nobody else may be on. */
  readonly ownsServer?: boolean
  /** Longer than what a test run should wait for. */
  readonly isSlow?: boolean
  readonly run: (stage: Stage) => Promise<Result>
}

/** What holds for every scenario with the library. */
function failuresOf({ lostBecause, inexplicable }: Scenario, result: Result): string[] {
  const isExpected = (cause: string | undefined): boolean =>
    inexplicable !== undefined
      ? cause === undefined
      : lostBecause !== undefined && cause?.includes(lostBecause) === true
  const wrong = result.lost.filter(({ cause }) => !isExpected(cause))
  const unexplained = result.lost.filter(({ cause }) => cause === undefined)
  return [
    ...(result.undecryptable > 0 ? [`${result.undecryptable} undecryptable`] : []),
    ...wrong.map(
      ({ text, cause }) =>
        `"${text}" was lost: ${cause ?? 'nobody knows why'}; expected ${inexplicable ?? lostBecause ?? 'no loss'}`,
    ),
    ...(result.unexplained > unexplained.length ? [`${result.unexplained} failures without a cause`] : []),
    ...(result.readTwice > 0 ? [`${result.readTwice} read twice`] : []),
    ...(result.orphans > 0 ? [`the server would issue ${result.orphans} keys without a private half`] : []),
    ...(result.failures ?? []),
  ]
}

/** Whether the library healed what it was to heal, remembers it, and failed at nothing. */
function healFailures({ heals: expected = [] }: Scenario, heals: readonly Heals[]): string[] {
  const events = heals.flatMap(({ told }) => told)
  const history = heals.flatMap((it) => it.history)
  const told = new Set(events.filter((event) => event.type === 'healed').map(({ cause }) => cause))
  const remembered = new Set(history.filter(({ ok }) => ok).map(({ cause }) => cause))
  return [
    ...(listed(remembered) === listed(expected)
      ? []
      : [`healed ${listed(remembered) || 'nothing'}; expected ${listed(expected) || 'nothing'}`]),
    ...[...told].filter((cause) => !remembered.has(cause)).map((cause) => `${cause} is in no history`),
    ...history.filter(({ ok }) => !ok).map(({ cause, detail }) => `not healed: ${cause}: ${detail}`),
    ...events
      .filter((event) => event.type === 'not_healed' || event.type === 'unguarded')
      .map(({ message }) => message),
  ]
}

function listed(reasons: Iterable<HealCause>): string {
  return [...new Set(reasons)].toSorted().join(', ')
}

export async function runScenario(scenario: Scenario, stage: Stage): Promise<Outcome> {
  const result = await scenario.run(stage)
  return {
    ...result,
    notes: result.notes ?? [],
    failures: stage.hasLibrary
      ? [...failuresOf(scenario, result), ...healFailures(scenario, await stage.heals())]
      : [],
  }
}
