/** The lab of the client library: each scenario shows its trouble without the library, and none of it with it. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { House } from '../lab/client/house.ts'
import { disappointments, play } from '../lab/client/play.ts'
import { SCENARIOS } from '../lab/client/scenarios/index.ts'

const house = await House.open()
after(() => house[Symbol.asyncDispose]())

for (const scenario of SCENARIOS) {
  test(`${scenario.name} (${scenario.client}): ${scenario.story}`, async () => {
    assert.deepEqual(disappointments(scenario, await play(house, scenario)), [])
  })
}
