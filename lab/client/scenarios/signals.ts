/** Counts and signals that are wrong, stale or repeated. */
import { SYNC, UPLOAD } from '../network.ts'
import { emulate, withoutExtensions } from '../plain-server.ts'
import type { Scenario } from '../scenario.ts'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'

function reportZero(answer: AnyJson): void {
  withoutExtensions(answer)
  for (const counts of ['device_one_time_keys_count', 'one_time_key_counts']) {
    if (answer[counts] !== undefined) answer[counts] = { signed_curve25519: 0 }
  }
}

export const alwaysZero: Scenario = {
  name: 'always-zero',
  client: 'libolm',
  story: 'The server reports 0 keys in every answer.',
  problem: 'each sync creates 50 more keys, and libolm drops the oldest, which are issued first',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    emulate('bare', alice.network)
    for (const path of [SYNC, UPLOAD]) alice.network.rewrite(path, reportZero)
    for (let i = 0; i < 6; i++) await mail.round()
    mail.requireAllFromNow()
    await mail.write(3)
    await mail.round()
    return mail.tally()
  },
}

export const alwaysZeroMachine: Scenario = {
  name: 'always-zero-sdk',
  client: 'OlmMachine',
  story: 'The server reports 0 keys in every sync; only answers to uploads are correct.',
  problem: 'fifty more keys with every sync, without limit',
  shows: ({ published }) => published >= 300,
  async run(context) {
    const alice = await context.machine({
      level: 'bare',
      prepare: (network) => network.rewrite(SYNC, reportZero),
    })
    const mail = context.mailbox(alice)
    for (let i = 0; i < 6; i++) await mail.round()
    mail.requireAllFromNow()
    await mail.write(3)
    await mail.round()
    const tally = await mail.tally()
    return {
      ...tally,
      notes: [`${tally.published} keys published`],
      failures: tally.published > 53 ? [`${tally.published} keys were published; expected 53`] : [],
    }
  },
}

/** Wrong answers to uploads; the scenario ends them because an OlmMachine would upload without limit. */
const WRONG_ANSWERS = 12
const NEW_KEYS_PER_DAY = 300

export const alwaysZeroEverywhere: Scenario = {
  name: 'always-zero-sdk-all',
  client: 'OlmMachine',
  story: 'The server reports 0 keys in every answer; the scenario ends this after 12 uploads.',
  problem: 'fifty more keys with every answer, at once and without limit',
  shows: ({ published }) => published >= 50 * WRONG_ANSWERS,
  async run(context) {
    let lies = 0
    const alice = await context.machine({
      level: 'bare',
      newKeysPerDay: NEW_KEYS_PER_DAY,
      prepare(network) {
        network.rewrite(SYNC, reportZero)
        network.rewrite(UPLOAD, (answer) => (++lies < WRONG_ANSWERS ? reportZero : withoutExtensions)(answer))
      },
    })
    const mail = context.mailbox(alice)
    for (let i = 0; i < 3; i++) await mail.round()
    mail.requireAllFromNow()
    await mail.write(3)
    await mail.round()
    const tally = await mail.tally()
    return {
      ...tally,
      notes: [`${tally.published} keys published`],
      failures:
        tally.published > NEW_KEYS_PER_DAY
          ? [`${tally.published} keys were published; expected ${NEW_KEYS_PER_DAY}`]
          : [],
    }
  },
}

export const fallbackUsedAgain: Scenario = {
  name: 'fallback-used-again',
  client: 'libolm',
  story: 'The server reports in every sync that the fallback key was used.',
  problem: 'each sync rotates it, and libolm keeps two: a pending message is lost',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.claim(50)
    const late = await mail.claimFor()
    alice.network.rewrite(SYNC, (answer) => {
      withoutExtensions(answer)
      answer.device_unused_fallback_key_types = []
    })
    for (let i = 0; i < 4; i++) await mail.round()
    await late.send()
    mail.requirePending()
    await mail.round()
    await mail.write(2)
    await mail.round()
    return mail.tally()
  },
}

export const staleSync: Scenario = {
  name: 'stale-sync',
  client: 'libolm',
  story: 'The answer to a sync from before an upload arrives after it, with the old count.',
  problem: 'fifty keys too many displace the private halves of claimed keys',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    const late = [await mail.claimFor(), await mail.claimFor()]
    await mail.claim(48)
    const [first, stale] = [await alice.sync(), await alice.sync()]
    await alice.take(first)
    await alice.take(stale)
    for (const message of late) await message.send()
    mail.requirePending()
    await mail.round()
    const tally = await mail.tally()
    return { ...tally, notes: [`${tally.published} keys published`] }
  },
}

export const twiceAndReordered: Scenario = {
  name: 'duplicate-and-reordered',
  client: 'libolm',
  story: 'Sync answers arrive twice and in the wrong order; an upload reaches the server a second time.',
  problem: 'a message encrypted to the fallback key is read twice',
  shows: ({ readTwice }) => readTwice > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.claim(49)
    await mail.write(2)
    const uploadAgain = alice.network.duplicateLater(UPLOAD)
    const [older, newer] = [await alice.sync(), await alice.sync()]
    await mail.watch(alice, () => alice.take(newer))
    await alice.take(older)
    await alice.take(older)
    await uploadAgain()
    mail.requireAllFromNow()
    await mail.write(2)
    await mail.round()
    return mail.tally()
  },
}
