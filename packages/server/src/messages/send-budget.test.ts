/** The budget of a sender: what a bucket at rest takes, and what costs nothing. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { DEFAULT_RATES } from '../config/config.ts'
import type { UserRef } from '../session.ts'
import { SendBudgets, sendsTooFast } from './send-budget.ts'

const [ALICE, BOB] = [1 as UserRef, 2 as UserRef]
const NOW = 1_700_000_000_000

function small(): SendBudgets {
  return new SendBudgets({
    toDeviceDeliveriesPerUser: { burst: 10, perSecond: 1 },
    toDeviceKibPerUser: { burst: 4, perSecond: 1 },
  })
}

test('the default budget at rest takes ten full fan-outs to 10 000 devices, of 2 KiB each, and refills', () => {
  const budgets = new SendBudgets(DEFAULT_RATES)
  const fanOut = { messages: 10_000, length: 10_000 * 2048 }
  for (let n = 0; n < 10; n++) assert.equal(budgets.charge(ALICE, NOW).take(fanOut), 0, `fan-out ${n}`)
  const flood = (): number => budgets.charge(ALICE, NOW).take(fanOut)
  for (let n = 0; n < 100 && flood() === 0; n++);
  assert.ok(flood() > 0)
  assert.equal(budgets.charge(BOB, NOW).take(fanOut), 0)
  assert.equal(budgets.charge(ALICE, NOW + 3_600_000).take(fanOut), 0)
})

test('deliveries and bytes are limited apart, and a refused request takes neither', () => {
  const budgets = small()
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 1, length: 3 * 1024 }), 0)
  assert.ok(budgets.charge(ALICE, NOW).take({ messages: 9, length: 2 * 1024 }) > 0)
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 9, length: 1024 }), 0)
  assert.ok(budgets.charge(ALICE, NOW).take({ messages: 0, length: 1 }) > 0)
  assert.ok(budgets.charge(ALICE, NOW).take({ messages: 1, length: 0 }) > 0)
})

test('a request whose transaction runs again pays once, and one that delivers nothing gets it back', () => {
  const budgets = small()
  const charge = budgets.charge(ALICE, NOW)
  assert.equal(charge.take({ messages: 10, length: 100 }), 0)
  assert.equal(charge.take({ messages: 10, length: 100 }), 0)
  charge.refund()
  charge.refund()
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 10, length: 4096 }), 0)
})

test('deliveries without bytes are limited too', () => {
  const budgets = small()
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 10, length: 0 }), 0)
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 1, length: 0 }), 1_000)
})

test('a charge that is given back twice gives back nothing of another request', () => {
  const budgets = small()
  const charge = budgets.charge(ALICE, NOW)
  assert.equal(charge.take({ messages: 5, length: 0 }), 0)
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 5, length: 0 }), 0)
  charge.refund()
  charge.refund()
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 6, length: 0 }), 1_000)
})

test('a budget at rest takes one request of any size', () => {
  const budgets = small()
  assert.equal(budgets.charge(ALICE, NOW).take({ messages: 1_000, length: 1_000_000 }), 0)
  assert.ok(budgets.charge(ALICE, NOW).take({ messages: 1, length: 1 }) > 0)
})

test('the refusal names the account, the size and a short wait', () => {
  const error = sendsTooFast({ messages: 3, length: 2_000 }, 60_000)
  assert.equal(error.status, 429)
  assert.match(error.message, /account .* 3 deliveries with 2 KiB/)
  assert.equal(error.extra['retry_after_ms'], 2_000)
})
