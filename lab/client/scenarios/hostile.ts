/** Malicious messages and answers, and messages at unfavourable times. */
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { Clock } from '../clock.ts'
import { randomKey, sendContent, sendForged } from '../forged-prekey-message.ts'
import { RESET, SYNC, UPLOAD } from '../network.ts'
import type { Scenario } from '../scenario.ts'

export const forgedKey: Scenario = {
  name: 'forged-key',
  client: 'libolm',
  story: 'An attacker sends a pre-key message that names a key that was never published.',
  problem: 'it looks like any lost message: nothing shows that no key is missing',
  shows: ({ unexplained }) => unexplained > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    const before = await alice.pool()
    await sendForged(await context.server.senders.attacker(), alice, randomKey())
    await mail.round()
    const after = await alice.pool()
    await mail.write(2)
    await mail.round()
    const isUntouched = JSON.stringify(before) === JSON.stringify(after)
    return {
      ...(await mail.tally()),
      failures: isUntouched ? [] : ['a forged message changed the pool'],
    }
  },
}

export const forgedKeyMachine: Scenario = {
  name: 'forged-key-sdk',
  client: 'OlmMachine',
  story: 'Forged messages name a key that was never published, a claimed one, and an available one.',
  problem: 'three failures without a cause, and nothing shows that no key is missing',
  shows: ({ unexplained }) => unexplained === 3,
  async run(context) {
    const alice = await context.machine()
    const mail = context.mailbox(alice)
    const attacker = await context.server.senders.attacker()
    const honest = await mail.claimFor()
    const [upload] = alice.network.to(UPLOAD)
    const last = Object.values<AnyJson>(upload?.sent.one_time_keys).at(-1)
    for (const key of [randomKey(), honest.key.key, last.key]) await sendForged(attacker, alice, key)
    await mail.round()
    await mail.round()
    const resets = alice.network.to(RESET).filter(({ sent }) => sent.all === true)
    await honest.send()
    mail.requirePending()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return {
      ...(await mail.tally()),
      failures: resets.length > 0 ? ['a forged message made the guard reset the keys'] : [],
    }
  },
}

export const malformedMessage: Scenario = {
  name: 'malformed-message',
  client: 'libolm',
  story: 'A malformed pre-key message names a valid key before the real message that uses it.',
  problem: 'the key is removed for a message that never decrypts',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm({ habits: { removesKeyFirst: true } })
    const mail = context.mailbox(alice)
    const honest = await mail.claimFor()
    await sendForged(await context.server.senders.attacker(), alice, honest.key.key)
    await mail.round()
    await honest.send()
    mail.requirePending()
    await mail.round()
    return mail.tally()
  },
}

export const replayedFallback: Scenario = {
  name: 'replayed-message',
  client: 'libolm',
  story: 'A message encrypted to the fallback key is recorded and sent again.',
  problem: 'it is decrypted a second time as if it were new',
  shows: ({ readTwice }) => readTwice > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.claim(50)
    const [key] = await mail.write(1)
    await mail.round()
    const recorded = alice.network.to(SYNC).flatMap(({ answer }) => answer.to_device.events)
    const [event] = recorded
    await sendContent(await context.server.senders.get(0), alice, event.content)
    await mail.round()
    return { ...(await mail.tally()), failures: key?.isFallback ? [] : ['expected a fallback key'] }
  },
}

export const delayedDelivery: Scenario = {
  name: 'delayed-delivery',
  client: 'libolm',
  story: 'A message arrives after 125 more keys were claimed and replaced.',
  problem:
    'libolm keeps 100 private keys: the oldest is dropped in favour of keys that were claimed but never used',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    const late = await mail.claimFor()
    for (let i = 0; i < 5; i++) {
      await mail.claim(25)
      await mail.round()
    }
    await late.send()
    mail.requirePending()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return mail.tally()
  },
}

const DAY_MS = 86_400_000

export const clockSetBack: Scenario = {
  name: 'clock-set-back',
  client: 'libolm',
  story:
    'The clock jumps eight days ahead and back while a message encrypted to the fallback key is pending.',
  problem: 'both jumps rotate the fallback key, and the private half of the first one is dropped',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const clock = new Clock()
    const alice = await context.libolm({ habits: { rotatesByAge: true }, clock })
    const mail = context.mailbox(alice)
    await mail.claim(50)
    const late = await mail.claimFor()
    clock.pass(8 * DAY_MS)
    await mail.round()
    clock.pass(-9 * DAY_MS)
    await mail.round()
    await late.send()
    mail.requirePending()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return mail.tally()
  },
}
