/** The client loses or duplicates its own state. */
import { randomKey } from '../forged-prekey-message.ts'
import { UPLOAD } from '../network.ts'
import type { Scenario } from '../scenario.ts'

export const lostUploadResponse: Scenario = {
  name: 'lost-upload-response',
  client: 'libolm',
  story: 'The answer to an upload is lost, and the process restarts.',
  problem: 'the new keys were saved after sending: the server has ten dead keys',
  shows: ({ undecryptable, deadKeys }) => undecryptable > 0 && deadKeys > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.claim(10)
    alice.network.loseAnswer(UPLOAD)
    await mail.round()
    await alice.restart()
    await mail.round()
    mail.requireAllFromNow()
    await mail.claim(38)
    await mail.write(4)
    await mail.round()
    return mail.tally()
  },
}

export const restoredLibolm: Scenario = {
  name: 'old-snapshot-libolm',
  client: 'libolm',
  lostBecause: 'lost',
  heals: ['unknown_keys'],
  story: 'The disk is restored from a snapshot; forty keys were replaced since.',
  problem: 'the server issues keys that the snapshot lacks, and new keys conflict',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    const backup = await alice.backUp()
    await mail.claim(40)
    await mail.round()
    await alice.restore(backup)
    // The snapshot has ten of the available keys; the first message uses one.
    await mail.write(1)
    await mail.claim(9)
    await mail.write(1)
    await mail.round()
    mail.requireAllFromNow()
    await mail.write(2)
    await mail.round()
    await mail.round()
    return mail.tally()
  },
}

/** Such a server reports only counts, which show that there are more keys than were published. */
export const restoredLibolmPlain: Scenario = {
  name: 'old-snapshot-libolm-msc',
  client: 'libolm',
  inexplicable: 'the server lists no keys, so their origin before the snapshot is unknown',
  heals: ['unknown_keys'],
  story: 'The disk is restored from a snapshot older than the first upload; plain MSC4162 lists no keys.',
  problem: 'a new identity, and messages are lost without a cause',
  shows: ({ lost }) => lost.some(({ cause }) => cause === undefined),
  async run(context) {
    const place = { session: await context.signIn(), path: context.newFile() }
    const alice = await context.libolmAt(place, { level: 'msc4162' })
    const mail = context.mailbox(alice)
    const backup = await alice.backUp()
    await mail.round()
    await mail.write(1)
    await alice.restore(backup)
    await mail.round()
    mail.requireAllFromNow()
    await mail.write(3)
    await mail.round()
    return mail.tally()
  },
}

export const conflictLibolm: Scenario = {
  name: 'conflict-libolm-msc',
  client: 'libolm',
  story:
    'Other keys are published under the IDs of an upload before it arrives; the server is plain MSC4162.',
  problem: 'every retry of the upload is refused, and the keys run out',
  shows: ({ refused }) => refused >= 3,
  heals: ['conflict'],
  async run(context) {
    const session = await context.signIn()
    const alice = await context.libolm({ session, level: 'msc4162' })
    const mail = context.mailbox(alice)
    await mail.claim(25)
    alice.network.precede(UPLOAD, async ({ one_time_keys: keys }) => {
      const others = Object.keys(keys).map((name) => [name, { key: randomKey() }])
      await session.ok('POST', '/v3/keys/upload', { one_time_keys: Object.fromEntries(others) })
    })
    await mail.round()
    mail.requireAllFromNow()
    await mail.write(2)
    await mail.round()
    await mail.claim(5)
    await mail.round()
    return mail.tally()
  },
}

export const twoProcesses: Scenario = {
  name: 'two-processes',
  client: 'libolm',
  story: 'Two processes use one account and one disk.',
  problem: 'both use the same next IDs for different keys, and the last save wins',
  shows: ({ undecryptable, refused }) => undecryptable > 0 || refused > 0,
  async run(context) {
    const first = await context.libolm()
    const mail = context.mailbox(first)
    const second = await first.second()
    await mail.claim(20)
    await mail.round(first)
    await mail.claim(15)
    await mail.round(second)
    await mail.round(first)
    mail.switchTo(second)
    await mail.round(second)
    mail.requireAllFromNow()
    await mail.claim(30)
    await mail.write(3)
    await mail.round(second)
    await mail.round(second)
    return mail.tally()
  },
}

export const corruptedStore: Scenario = {
  name: 'corrupted-store',
  client: 'libolm',
  story: 'The saved state is damaged; a copy exists.',
  problem: 'a new account is created silently, and pending messages are lost',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.write(2)
    mail.requirePending()
    const copy = await alice.backUp()
    const { error } = await alice.damage()
    if (error !== undefined) await alice.restore(copy)
    await mail.round()
    await mail.write(1)
    await mail.round()
    return {
      ...(await mail.tally()),
      ...(error !== undefined && { notes: ['the start reported its error'] }),
      failures: error === undefined ? ['a damaged store caused no error'] : [],
    }
  },
}

export const wipedStore: Scenario = {
  name: 'wiped-store',
  client: 'libolm',
  lostBecause: 'knows DEVICE by another identity',
  story: 'The store is lost, but not the access token.',
  problem: 'a new identity under the old device ID: senders that use the old one cannot reach it',
  shows: ({ lost }) => lost.some(({ cause }) => cause === undefined),
  async run(context) {
    const alice = await context.libolm()
    const mail = context.mailbox(alice)
    await mail.write(2)
    await mail.round()
    await mail.writeAgain({ isSessionLost: true })
    await alice.wipe()
    await mail.round()
    return mail.tally()
  },
}
