/**
 * The same requests get the same answers from both stores: a directed history for every difference that the stores once
 * had, and random histories. Needs LATCHKEY_TEST_POSTGRES; PROPERTY_RUNS is the number of random histories per policy.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import fc from 'fast-check'
import type { Config, RateLimits } from '../../src/config/config.ts'
import { DEFAULT_POOL_POLICY, type PoolPolicy } from '../../src/pool/policy.ts'
import { TEST_CONFIG } from '@latchkey/testing/test-server.ts'
import { DIRECTED } from './same-answers/directed.ts'
import { runHistory } from './same-answers/history.ts'
import { isMasked } from './same-answers/known-differences.ts'
import { countResets, FailingRate } from './same-answers/reset-charges.ts'
import { ServerPair } from './same-answers/server-pair.ts'
import { histories } from './same-answers/steps.ts'

const skip =
  (process.env['LATCHKEY_TEST_POSTGRES'] ?? '') === '' &&
  'LATCHKEY_TEST_POSTGRES names no server; "npm run test:postgres" starts one'

/** Random histories per policy, of about 30 requests each. */
const RUNS = Number(process.env['PROPERTY_RUNS'] ?? 5)
/** Minimum of requests per history, on average: 300 in a default run. */
const MIN_REQUESTS = 20
/** Time after which shrinking ends, with the shortest failing history found until then. */
const SHRINK_MS = 60_000
const RUN_MS = 10_000

const PLENTY = { burst: 1_000_000, perSecond: 1000 }
const RATES: RateLimits = {
  loginPerAddress: PLENTY,
  loginPerAccount: PLENTY,
  loginPerAccountInAll: PLENTY,
  registrationPerAddress: PLENTY,
  resetPerDevice: { burst: 4, perSecond: 1 / 60 },
  claimPerTarget: { burst: 4, perSecond: 1 / 60 },
  toDeviceDeliveriesPerUser: { burst: 12, perSecond: 1 / 60 },
  toDeviceKibPerUser: PLENTY,
  workPerUser: PLENTY,
  workPerAddress: PLENTY,
}

/** Limits low enough for a short history to reach. */
function configOf(policy: Partial<PoolPolicy>, rates: Partial<RateLimits> = {}): Partial<Config> {
  return {
    rates: { ...RATES, ...rates },
    sizes: { ...TEST_CONFIG.sizes, toDevicePerSync: 3 },
    pools: {
      ...DEFAULT_POOL_POLICY,
      keysPerPool: 5,
      algorithmsPerDevice: 3,
      keysPerDeviceAndDay: 25,
      healsPerDeviceAndDay: 2,
      ...policy,
    },
  }
}

const POLICIES: readonly (readonly [string, Partial<PoolPolicy>])[] = [
  ['rejecting conflicts, in upload order', { onConflict: 'reject' }],
  ['healing conflicts, in upload order', { onConflict: 'heal' }],
  ['healing conflicts, in key ID order', { onConflict: 'heal', claimOrder: 'key_id' }],
]

const pairs = new Map<string, Promise<ServerPair>>()
after(async () => {
  for (const pair of pairs.values()) await (await pair).close()
})

/** Histories of one policy share their servers, but no user. */
function pairFor(policy: Partial<PoolPolicy>): Promise<ServerPair> {
  const name = JSON.stringify(policy)
  const pair = pairs.get(name) ?? ServerPair.start(configOf(policy, { toDeviceDeliveriesPerUser: PLENTY }))
  pairs.set(name, pair)
  return pair
}

for (const { name, policy = {}, steps } of DIRECTED) {
  test(`both stores: ${name}`, { skip }, async () => {
    await runHistory(await pairFor(policy), steps)
  })
}

test('both stores: a reset whose transaction runs again is charged once', {
  skip: skip || (isMasked('reset-charged') && 'masked'),
}, async () => {
  const claims = new FailingRate()
  const burst = 2
  const resetPerDevice = { burst, perSecond: 1 }
  const pair = await ServerPair.start(configOf({}, { claimPerTarget: claims, resetPerDevice }))
  try {
    for (const taken of await countResets(pair, claims, burst)) {
      assert.deepEqual(taken, { sqlite: burst, postgres: burst })
    }
  } finally {
    await pair.close()
  }
})

for (const [name, policy] of POLICIES) {
  test(`random histories get the same answers on both stores, ${name}`, { skip }, async () => {
    const pair = await ServerPair.start(configOf(policy))
    try {
      let requests = 0
      await fc.assert(
        fc.asyncProperty(histories, async (steps) => {
          requests += (await runHistory(pair, steps)).requests
        }),
        { numRuns: RUNS, interruptAfterTimeLimit: RUNS * RUN_MS + SHRINK_MS },
      )
      assert.ok(requests >= RUNS * MIN_REQUESTS, `only ${requests} requests were compared`)
    } finally {
      await pair.close()
    }
  })
}
