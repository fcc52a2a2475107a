/** `npm run lab:client`: all known kinds of key drift, on real clients, without and with the library. */
import { parseArgs } from 'node:util'
import { LabServer } from './lab-server.ts'
import { expectationFailures, runBoth } from './run-both.ts'
import { SCENARIOS } from './scenarios/index.ts'
import { details, header, LEGEND, line } from './table.ts'

const HELP = `npm run lab:client -- [--only NAME]... [--brief]

Runs each scenario twice against a Latchkey server in this process: without @latchkey/client and with it.
Exits with 1 if an expectation failed.

  --only NAME   run only this scenario; may be repeated
  --brief       print only the table
  --help        print this text

Scenarios:
${SCENARIOS.map(({ name, story }) => `  ${name.padEnd(24)} ${story}`).join('\n')}
`

const { values } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    brief: { type: 'boolean' },
    help: { type: 'boolean' },
  },
})

async function main(): Promise<void> {
  if (values.help === true) {
    console.log(HELP)
    return
  }
  const only = values.only
  const unknown = (only ?? []).filter((name) => !SCENARIOS.some((scenario) => scenario.name === name))
  if (unknown.length > 0) {
    console.error(`Unknown scenario: ${unknown.join(', ')}.\n\n${HELP}`)
    process.exitCode = 2
    return
  }
  await using server = await LabServer.open()
  console.log(header())
  const failures: string[] = []
  for (const scenario of SCENARIOS.filter(({ name }) => only?.includes(name) ?? true)) {
    const outcomes = await runBoth(server, scenario)
    console.log(line(scenario, outcomes))
    if (values.brief !== true) for (const text of details(scenario, outcomes)) console.log(`    ${text}`)
    for (const failure of expectationFailures(scenario, outcomes)) {
      failures.push(`${scenario.name}: ${failure}`)
      console.log(`    FAILED: ${failure}`)
    }
  }
  console.log(`\n${LEGEND}`)
  if (failures.length === 0) return
  console.error(`\n${failures.length} expectations failed.`)
  process.exitCode = 1
}

await main()
