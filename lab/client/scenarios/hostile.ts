/** Messages and answers that somebody made to do harm, or that come at a bad time. */
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { Clock } from '../clock.ts'
import { madeUpKey, sendContent, sendForged } from '../forge.ts'
import { RESET, SYNC, UPLOAD } from '../network.ts'
import type { Scenario } from '../scenario.ts'

export const forgedKey: Scenario = {
  name: 'forged-key',
  client: 'libolm',
  story: 'A stranger sends a pre-key message that names a key nobody ever published.',
  trouble: 'it looks like any lost message: nothing says that no key is missing',
  shows: ({ unexplained }) => unexplained > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    const before = await alice.pool()
    await sendForged(await stage.house.senders.stranger(), alice, madeUpKey())
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
  story: 'Forged messages name a key nobody published, one that is in flight, and one that nobody has yet.',
  trouble: 'three failures without a cause, and nothing says that no key is missing',
  shows: ({ unexplained }) => unexplained === 3,
  async run(stage) {
    const alice = await stage.machine()
    const mail = stage.mailbox(alice)
    const stranger = await stage.house.senders.stranger()
    const honest = await mail.claimFor()
    const [upload] = alice.network.to(UPLOAD)
    const last = Object.values<AnyJson>(upload?.sent.one_time_keys).at(-1)
    for (const key of [madeUpKey(), honest.key.key, last.key]) await sendForged(stranger, alice, key)
    await mail.round()
    await mail.round()
    const resets = alice.network.to(RESET).filter(({ sent }) => sent.all === true)
    await honest.send()
    mail.mustStayReadable()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return {
      ...(await mail.tally()),
      failures: resets.length > 0 ? ['a forged message made the guard start over'] : [],
    }
  },
}

export const malformedMessage: Scenario = {
  name: 'malformed-message',
  client: 'libolm',
  story: 'A malformed pre-key message names a good key before the honest message that was made with it.',
  trouble: 'the key was removed for a message that never decrypted',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(stage) {
    const alice = await stage.libolm({ habits: { removesKeyFirst: true } })
    const mail = stage.mailbox(alice)
    const honest = await mail.claimFor()
    await sendForged(await stage.house.senders.stranger(), alice, honest.key.key)
    await mail.round()
    await honest.send()
    mail.mustStayReadable()
    await mail.round()
    return mail.tally()
  },
}

export const replayedFallback: Scenario = {
  name: 'replayed-message',
  client: 'libolm',
  story: 'A message made with the fallback key is recorded, and sent once more.',
  trouble: 'it is read a second time, as if it were new',
  shows: ({ readTwice }) => readTwice > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    await mail.claim(50)
    const [key] = await mail.write(1)
    await mail.round()
    const recorded = alice.network.to(SYNC).flatMap(({ answer }) => answer.to_device.events)
    const [event] = recorded
    await sendContent(await stage.house.senders.get(0), alice, event.content)
    await mail.round()
    return { ...(await mail.tally()), failures: key?.isFallback ? [] : ['expected a fallback key'] }
  },
}

export const delayedDelivery: Scenario = {
  name: 'delayed-delivery',
  client: 'libolm',
  story: 'A message arrives after 125 more keys were claimed and replaced.',
  trouble: 'libolm keeps 100 private keys: the oldest had to go for those of people who never wrote',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    const late = await mail.claimFor()
    for (let i = 0; i < 5; i++) {
      await mail.claim(25)
      await mail.round()
    }
    await late.send()
    mail.mustStayReadable()
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
    'The clock jumps eight days ahead and back again while a message made with the fallback key is under way.',
  trouble: 'both jumps rotate the fallback key, and of the first one the private half is gone',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(stage) {
    const clock = new Clock()
    const alice = await stage.libolm({ habits: { rotatesByAge: true }, clock })
    const mail = stage.mailbox(alice)
    await mail.claim(50)
    const late = await mail.claimFor()
    clock.pass(8 * DAY_MS)
    await mail.round()
    clock.pass(-9 * DAY_MS)
    await mail.round()
    await late.send()
    mail.mustStayReadable()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return mail.tally()
  },
}
