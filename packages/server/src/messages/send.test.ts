/** Rules of a to-device request: recipients, transaction memory, fan-out limit. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import type { DeviceId, UserId } from '@latchkey/protocol'
import type { DeviceRef, UserRef } from '../session.ts'
import type { InboxLoad } from './inbox.ts'
import type { SendCharge } from './send-budget.ts'
import {
  type AddressedMessage,
  decideSend,
  type KnownDevice,
  MAX_FAN_OUT_LENGTH,
  MAX_RECIPIENTS,
} from './send.ts'

const NOW = 1_700_000_000_000
const SENDER = 9 as UserRef
const DAY_MS = 24 * 60 * 60 * 1000
const ALICE = '@alice:test.example' as UserId
const DEVICES: readonly KnownDevice[] = ['A', 'B', 'C'].map((deviceId, place) => ({
  deviceRef: (place + 1) as DeviceRef,
  deviceId,
}))

function named(deviceId: string, candidates = DEVICES, event = `to ${deviceId}`): AddressedMessage {
  return { userId: ALICE, deviceId: deviceId as DeviceId, event, candidates }
}

function wildcard(except: readonly string[], candidates = DEVICES, event = 'to all'): AddressedMessage {
  return { userId: ALICE, exceptDeviceIds: new Set(except), event, candidates }
}

/** Deliveries as `device: event`, or the kind of any other decision. */
function outcome(messages: readonly AddressedMessage[], sentTs?: number): string | string[] {
  const decision = decideSend({ sender: SENDER, charge: undefined, sentTs, messages }, NOW)
  if (decision.kind === 'refused') return `${decision.error.status} ${decision.error.errcode}`
  if (decision.kind === 'nothing') return 'nothing'
  return decision.deliveries.map(({ device, event }) => `${device}: ${event}`)
}

describe('the recipients of a to-device message', () => {
  const rows: readonly (readonly [string, readonly AddressedMessage[], string[]])[] = [
    ['a named device receives it alone', [named('B')], ['2: to B']],
    ['a device that does not exist is ignored', [named('X', []), named('B')], ['2: to B']],
    ['a named device that is not among the candidates is ignored', [named('X'), named('B')], ['2: to B']],
    ['`*` reaches every device', [wildcard([])], ['1: to all', '2: to all', '3: to all']],
    ['`*` spares devices with a message of their own', [wildcard(['A', 'C'])], ['2: to all']],
    ['`*` of a user without devices reaches none', [wildcard([], []), named('A')], ['1: to A']],
    [
      'messages keep the order of the request',
      [named('C'), wildcard(['C']), named('A', DEVICES, 'again')],
      ['3: to C', '1: to all', '2: to all', '1: again'],
    ],
  ]
  for (const [name, messages, expected] of rows)
    test(name, () => assert.deepEqual(outcome(messages), expected))

  test('a request that delivers nothing changes nothing, and is not remembered', () => {
    for (const messages of [[], [named('X')], [wildcard([], [])]]) assert.equal(outcome(messages), 'nothing')
  })
})

describe('the memory of transactions', () => {
  const rows: readonly (readonly [string, number | undefined, string | string[]])[] = [
    ['a new transaction ID is carried out', undefined, ['1: to A']],
    ['one that was carried out just now is a repeat', NOW, 'nothing'],
    ['one that was carried out a day ago is a repeat', NOW - DAY_MS, 'nothing'],
    ['a millisecond later it is a new one, although its row is not swept', NOW - DAY_MS - 1, ['1: to A']],
    ['one from the future, after the clock moved back, is a repeat', NOW + 1, 'nothing'],
  ]
  for (const [name, sentTs, expected] of rows)
    test(name, () => assert.deepEqual(outcome([named('A')], sentTs), expected))

  test('a repeat is answered as one although it exceeds the fan-out limit by now', () =>
    assert.equal(outcome([named('A', DEVICES, 'x'.repeat(MAX_FAN_OUT_LENGTH + 1))], NOW), 'nothing'))
})

describe('the fan-out limit', () => {
  const third = 'x'.repeat(Math.floor(MAX_FAN_OUT_LENGTH / 3))
  const rest = 'x'.repeat(MAX_FAN_OUT_LENGTH - 3 * third.length)
  const rows: readonly (readonly [string, readonly AddressedMessage[], number | string])[] = [
    [
      'a request of exactly the limit is delivered',
      [wildcard([], DEVICES, third), named('A', DEVICES, rest)],
      4,
    ],
    [
      'a character more is 413, `*` counted per device',
      [wildcard([], DEVICES, third), named('A', DEVICES, `${rest}x`)],
      '413 M_TOO_LARGE',
    ],
    [
      'devices that receive nothing do not count',
      [wildcard(['A'], DEVICES, third), named('X', [], third)],
      2,
    ],
  ]
  for (const [name, messages, expected] of rows) {
    test(name, () => {
      const found = outcome(messages)
      assert.equal(typeof found === 'string' ? found : found.length, expected)
    })
  }

  test('more recipients than `MAX_RECIPIENTS` exceed it with the shortest of events', () => {
    const shortest = JSON.stringify({ sender: '@a:b', type: 'c', content: {} })
    assert.ok((MAX_RECIPIENTS + 1) * shortest.length > MAX_FAN_OUT_LENGTH)
  })
})

describe('the budget of the sender', () => {
  const taken: InboxLoad[] = []
  const charge: SendCharge = {
    take(load) {
      taken.push(load)
      return 0
    },
    refund: () => {},
  }
  const decide = (messages: readonly AddressedMessage[], sentTs?: number): string =>
    decideSend({ sender: SENDER, charge, sentTs, messages }, NOW).kind

  test('pays for every delivery of a request, `*` expanded, and for nothing else', () => {
    assert.equal(decide([wildcard(['A'], DEVICES, '123'), named('A', DEVICES, '12345')]), 'deliver')
    assert.equal(decide([named('A')], NOW), 'nothing')
    assert.equal(decide([named('X')]), 'nothing')
    assert.equal(decide([named('A', DEVICES, 'x'.repeat(MAX_FAN_OUT_LENGTH + 1))]), 'refused')
    assert.deepEqual(taken, [{ messages: 3, length: 11 }])
  })

  test('refuses a request that it lacks room for with a 429', () => {
    const empty: SendCharge = { take: () => 5_000, refund: () => {} }
    const facts = { sender: SENDER, charge: empty, sentTs: undefined, messages: [named('A')] }
    const decision = decideSend(facts, NOW)
    assert.equal(decision.kind === 'refused' && decision.error.status, 429)
  })
})
