/** Runs a scenario once without the library and once with it. */
import { LabServer } from './lab-server.ts'
import { type Outcome, runScenario, type Scenario } from './scenario.ts'
import { ScenarioContext } from './scenario-context.ts'

export type BothOutcomes = { readonly without: Outcome; readonly with: Outcome }

export async function runBoth(server: LabServer, scenario: Scenario): Promise<BothOutcomes> {
  return { without: await runOnce(server, scenario, false), with: await runOnce(server, scenario, true) }
}

async function runOnce(server: LabServer, scenario: Scenario, hasLibrary: boolean): Promise<Outcome> {
  if (scenario.ownsServer === true) {
    await using own = await LabServer.open()
    return await runIn(own, scenario, hasLibrary)
  }
  return runIn(server, scenario, hasLibrary)
}

async function runIn(server: LabServer, scenario: Scenario, hasLibrary: boolean): Promise<Outcome> {
  await using context = new ScenarioContext(server, scenario.name, hasLibrary)
  return await runScenario(scenario, context)
}

/** Descriptions of all unmet expectations of the scenario. */
export function expectationFailures(
  scenario: Scenario,
  { without, with: withLibrary }: BothOutcomes,
): string[] {
  return [
    ...(scenario.shows(without)
      ? []
      : [`without the library the problem did not occur: "${scenario.problem}"`]),
    ...withLibrary.failures.map((failure) => `with the library: ${failure}`),
  ]
}
