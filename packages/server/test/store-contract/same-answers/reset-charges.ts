/**
 * A reset is charged once, even if its transaction runs again because a claim in the same commit failed. Two requests
 * sent at the same time usually share a commit. The clock then refills the budget, and both are sent again.
 */
import assert from 'node:assert/strict'
import { RESET_UNSTABLE_PATH, SIGNED_CURVE25519 } from '@latchkey/protocol'
import type { BucketRate } from '../../../src/lib/token-bucket.ts'
import { keys, UPLOAD } from '@latchkey/testing/test-client.ts'
import { type Both, both, type PairRequest, type ServerPair, STORES } from './server-pair.ts'

const ATTEMPTS = 20
const REFILL_MS = 3_600_000

/** A rate that throws for every request while it is armed. */
export class FailingRate implements BucketRate {
  readonly perSecond = 1
  armed = false

  get burst(): number {
    if (this.armed) throw new Error('this rate fails')
    return 1_000_000
  }
}

/** Returns how many resets each server accepted out of `burst` (at least 2), one of which ran again. */
export async function countResets(
  pair: ServerPair,
  claims: FailingRate,
  burst: number,
): Promise<Both<number>[]> {
  const { token, target } = await login(pair)
  const reset = request(`/_matrix/client/${RESET_UNSTABLE_PATH}`, token, { key_ids: [] })
  const claim = request('/_matrix/client/v3/keys/claim', token, { one_time_keys: target })
  const counts: Both<number>[] = []
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const taken = { sqlite: 0, postgres: 0 }
    for (const store of STORES) {
      claims.armed = true
      const [first] = await Promise.all([reset, claim].map((it) => pair.ask(store, it)))
      claims.armed = false
      assert.equal(first?.status, 200)
      taken[store]++
      while (taken[store] < burst && (await pair.ask(store, reset)).status === 200) taken[store]++
    }
    counts.push(taken)
    pair.now += REFILL_MS
  }
  return counts
}

async function login(pair: ServerPair): Promise<{ token: Both<string>; target: object }> {
  const answers = await pair.request(
    request('/_matrix/client/v3/register', undefined, {
      username: 'resetter',
      password: 'password',
      device_id: 'A',
      auth: { type: 'm.login.dummy' },
    }),
  )
  const token = both((store) => String(answers[store].body.access_token))
  await pair.request(request(UPLOAD, token, { one_time_keys: keys(['a']) }))
  return { token, target: { '@resetter:test.example': { A: SIGNED_CURVE25519 } } }
}

function request(path: string, token: Both<string> | undefined, body: object): PairRequest {
  return { method: 'POST', path: both(() => path), body: both(() => body), ...(token && { token }) }
}
