/** A scenario and its expectations: the problem occurs without the library and not with it. */
import type { HealCause } from '@latchkey/client'
import type { Heals } from './device.ts'
import type { Tally } from './mailbox.ts'
import type { ScenarioContext } from './scenario-context.ts'

export type Outcome = Tally & {
  /** Figures specific to the scenario, for its line of the table. */
  readonly notes: readonly string[]
  /** Failed expectations with the library; empty without it. */
  readonly failures: readonly string[]
}

/** A scenario's result; `failures` are its own failed expectations, in addition to those of every scenario. */
export type Result = Tally & { readonly notes?: readonly string[]; readonly failures?: readonly string[] }

export type Scenario = {
  /** Name for `--only`. */
  readonly name: string
  readonly client: 'libolm' | 'OlmMachine' | 'js-sdk 43.0' | 'js-sdk 42.3'
  /** Summary in one sentence. */
  readonly story: string
  /** The problem without the library, in a few words. */
  readonly problem: string
  /** Whether the problem occurred. */
  readonly shows: (without: Result) => boolean
  /** With the library: expected cause of lost messages. Undefined: no message may be lost. */
  readonly lostBecause?: string
  /** With the library: why it cannot give the cause of lost messages. Every loss must then be without a cause. */
  readonly inexplicable?: string
  /** With the library: expected heals in its events and its history. Undefined: nothing may be healed. */
  readonly heals?: readonly HealCause[]
  /** Restores the server, so no other scenario may use it. */
  readonly ownsServer?: boolean
  /** Too slow for an ordinary test run. */
  readonly isSlow?: boolean
  readonly run: (context: ScenarioContext) => Promise<Result>
}

/** Failed expectations that every scenario has with the library. */
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
        `"${text}" was lost: ${cause ?? 'unknown cause'}; expected ${inexplicable ?? lostBecause ?? 'no loss'}`,
    ),
    ...(result.unexplained > unexplained.length ? [`${result.unexplained} failures without a cause`] : []),
    ...(result.readTwice > 0 ? [`${result.readTwice} read twice`] : []),
    ...(result.deadKeys > 0 ? [`the server would issue ${result.deadKeys} keys without a private half`] : []),
    ...(result.failures ?? []),
  ]
}

/** Failed expectations about heals: expected ones happened, are in the history, and none failed. */
function healFailures({ heals: expected = [] }: Scenario, heals: readonly Heals[]): string[] {
  const events = heals.flatMap((it) => it.events)
  const history = heals.flatMap((it) => it.history)
  const reported = new Set(events.filter((event) => event.type === 'healed').map(({ cause }) => cause))
  const remembered = new Set(history.filter(({ ok }) => ok).map(({ cause }) => cause))
  return [
    ...(listed(remembered) === listed(expected)
      ? []
      : [`healed ${listed(remembered) || 'nothing'}; expected ${listed(expected) || 'nothing'}`]),
    ...[...reported].filter((cause) => !remembered.has(cause)).map((cause) => `${cause} is in no history`),
    ...history.filter(({ ok }) => !ok).map(({ cause, detail }) => `not healed: ${cause}: ${detail}`),
    ...events
      .filter((event) => event.type === 'not_healed' || event.type === 'unguarded')
      .map(({ message }) => message),
  ]
}

function listed(reasons: Iterable<HealCause>): string {
  return [...new Set(reasons)].toSorted().join(', ')
}

export async function runScenario(scenario: Scenario, context: ScenarioContext): Promise<Outcome> {
  const result = await scenario.run(context)
  return {
    ...result,
    notes: result.notes ?? [],
    failures: context.hasLibrary
      ? [...failuresOf(scenario, result), ...healFailures(scenario, await context.heals())]
      : [],
  }
}
