import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KeyName } from '@latchkey/protocol'
import type { ResetResult } from './commands.ts'
import {
  decodeReplay,
  encodeReplay,
  REPLAY_RESET_MS,
  REPLAYED_RESETS_PER_DEVICE,
  tooManyResets,
} from './reset-replay.ts'

test('an answer is replayed as it was given', () => {
  const name = (id: string): KeyName => `signed_curve25519:${id}` as KeyName
  const result: ResetResult = {
    withdrawn: [name('A')],
    absent: [name('B')],
    outcomes: new Map([[name('C'), 'stored' as const]]),
    fallbackOutcomes: new Map([[name('F'), 'already_replaced' as const]]),
    storedAs: new Map([[name('D'), name('E')]]),
    evicted: [name('G')],
    status: { epoch: 'e', version: 1, generation: 2, algorithms: [] },
  }
  assert.deepEqual(decodeReplay(encodeReplay(result)), result)
})

test('a thousand answers are remembered for a day; one more is 429 with 2 s', () => {
  assert.deepEqual([REPLAYED_RESETS_PER_DEVICE, REPLAY_RESET_MS], [1_000, 24 * 60 * 60 * 1000])
  const { status, errcode, extra } = tooManyResets()
  assert.deepEqual([status, errcode, extra], [429, 'M_LIMIT_EXCEEDED', { retry_after_ms: 2_000 }])
})
