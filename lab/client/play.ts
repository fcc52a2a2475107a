/** Runs a scenario once without the library and once with it. */
import { House } from './house.ts'
import { type Outcome, runScenario, type Scenario } from './scenario.ts'
import { Stage } from './stage.ts'

export type Played = { readonly without: Outcome; readonly with: Outcome }

export async function play(house: House, scenario: Scenario): Promise<Played> {
  return { without: await playOnce(house, scenario, false), with: await playOnce(house, scenario, true) }
}

async function playOnce(house: House, scenario: Scenario, hasLibrary: boolean): Promise<Outcome> {
  if (scenario.ownsServer === true) {
    await using own = await House.open()
    return await on(own, scenario, hasLibrary)
  }
  return on(house, scenario, hasLibrary)
}

async function on(house: House, scenario: Scenario, hasLibrary: boolean): Promise<Outcome> {
  await using stage = new Stage(house, scenario.name, hasLibrary)
  return await runScenario(scenario, stage)
}

/** Everything that is not as the scenario claims, in words; empty when all is. */
export function disappointments(scenario: Scenario, { without, with: withLibrary }: Played): string[] {
  return [
    ...(scenario.shows(without) ? [] : [`without the library there was no trouble: "${scenario.trouble}"`]),
    ...withLibrary.failures.map((failure) => `with the library: ${failure}`),
  ]
}
