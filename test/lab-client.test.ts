/** The lab of the client library: each scenario's problem occurs without the library and not with it. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { LabServer } from '../lab/client/lab-server.ts'
import { expectationFailures, runBoth } from '../lab/client/run-both.ts'
import { SCENARIOS } from '../lab/client/scenarios/index.ts'

const server = await LabServer.open()
after(() => server[Symbol.asyncDispose]())

for (const scenario of SCENARIOS) {
  test(`${scenario.name} (${scenario.client}): ${scenario.story}`, async () => {
    assert.deepEqual(expectationFailures(scenario, await runBoth(server, scenario)), [])
  })
}
