/** `npm run lab:client`: every way in which keys come out of step, on real clients, without and with the library. */
import { parseArgs } from 'node:util'
import { House } from './house.ts'
import { disappointments, play } from './play.ts'
import { SCENARIOS } from './scenarios/index.ts'
import { details, header, LEGEND, line } from './table.ts'

const HELP = `npm run lab:client -- [--only NAME]... [--brief]

Plays each scenario twice against a Latchkey server in this process: without @latchkey/client and with it.
Ends with 1 when the library does not keep what it promises.

  --only NAME   play this scenario; may be repeated
  --brief       the table alone
  --help        this text

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
    console.error(`No scenario is called ${unknown.join(', ')}.\n\n${HELP}`)
    process.exitCode = 2
    return
  }
  await using house = await House.open()
  console.log(header())
  const failures: string[] = []
  for (const scenario of SCENARIOS.filter(({ name }) => only?.includes(name) ?? true)) {
    const played = await play(house, scenario)
    console.log(line(scenario, played))
    if (values.brief !== true) for (const text of details(scenario, played)) console.log(`    ${text}`)
    for (const failure of disappointments(scenario, played)) {
      failures.push(`${scenario.name}: ${failure}`)
      console.log(`    NOT AS PROMISED: ${failure}`)
    }
  }
  console.log(`\n${LEGEND}`)
  if (failures.length === 0) return
  console.error(`\n${failures.length} expectations failed.`)
  process.exitCode = 1
}

await main()
