/** The client loses or doubles its own state (desyncs of the client's making). */
import { madeUpKey } from '../forge.ts'
import { UPLOAD } from '../network.ts'
import type { Scenario } from '../scenario.ts'

export const lostUploadResponse: Scenario = {
  name: 'lost-upload-response',
  client: 'libolm',
  story: 'The answer to an upload is lost, and the process starts anew.',
  trouble: 'the new keys were saved after sending: the server has ten that nobody holds',
  shows: ({ undecryptable, orphans }) => undecryptable > 0 && orphans > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    await mail.claim(10)
    alice.network.loseAnswer(UPLOAD)
    await mail.round()
    await alice.restart()
    await mail.round()
    mail.expectAllFromNow()
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
  story: 'The disk is restored from a snapshot that is forty keys old.',
  trouble: 'the server issues keys that the snapshot does not have, and new ones conflict',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    const backup = await alice.backUp()
    await mail.claim(40)
    await mail.round()
    await alice.restore(backup)
    // Ten keys are left that the snapshot knows; one is used by the first message.
    await mail.write(1)
    await mail.claim(9)
    await mail.write(1)
    await mail.round()
    mail.expectAllFromNow()
    await mail.write(2)
    await mail.round()
    await mail.round()
    return mail.tally()
  },
}

/** Counts are all that such a server tells, and they show only that there are more keys than were published. */
export const restoredLibolmPlain: Scenario = {
  name: 'old-snapshot-libolm-msc',
  client: 'libolm',
  inexplicable: 'the server lists no keys, so whose they were before the snapshot is forgotten',
  heals: ['unknown_keys'],
  story: 'The disk is restored from a snapshot of before the first upload; plain MSC4162 lists no keys.',
  trouble: 'a new identity, and nobody knows why messages are lost',
  shows: ({ lost }) => lost.some(({ cause }) => cause === undefined),
  async run(stage) {
    const place = { session: await stage.signIn(), path: stage.newFile() }
    const alice = await stage.libolmAt(place, { level: 'msc4162' })
    const mail = stage.mailbox(alice)
    const backup = await alice.backUp()
    await mail.round()
    await mail.write(1)
    await alice.restore(backup)
    await mail.round()
    mail.expectAllFromNow()
    await mail.write(3)
    await mail.round()
    return mail.tally()
  },
}

export const conflictLibolm: Scenario = {
  name: 'conflict-libolm-msc',
  client: 'libolm',
  story:
    'Somebody publishes other keys under the IDs of an upload before it arrives; the server is plain MSC4162.',
  trouble: 'the same upload is refused for ever, and the keys run out',
  shows: ({ refused }) => refused >= 3,
  heals: ['conflict'],
  async run(stage) {
    const session = await stage.signIn()
    const alice = await stage.libolm({ session, level: 'msc4162' })
    const mail = stage.mailbox(alice)
    await mail.claim(25)
    alice.network.precede(UPLOAD, async ({ one_time_keys: keys }) => {
      const others = Object.keys(keys).map((name) => [name, { key: madeUpKey() }])
      await session.ok('POST', '/v3/keys/upload', { one_time_keys: Object.fromEntries(others) })
    })
    await mail.round()
    mail.expectAllFromNow()
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
  story: 'Two processes run on one account and its one disk.',
  trouble: 'both make the same next IDs with different keys, and the last to save wins',
  shows: ({ undecryptable, refused }) => undecryptable > 0 || refused > 0,
  async run(stage) {
    const first = await stage.libolm()
    const mail = stage.mailbox(first)
    const second = await first.second()
    await mail.claim(20)
    await mail.round(first)
    await mail.claim(15)
    await mail.round(second)
    await mail.round(first)
    mail.moveTo(second)
    await mail.round(second)
    mail.expectAllFromNow()
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
  story: 'The saved state is damaged; a copy of it exists.',
  trouble: 'a new account is made without a word, and the messages on their way are lost',
  shows: ({ undecryptable }) => undecryptable > 0,
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    await mail.write(2)
    mail.mustStayReadable()
    const copy = await alice.backUp()
    const { error } = await alice.damage()
    if (error !== undefined) await alice.restore(copy)
    await mail.round()
    await mail.write(1)
    await mail.round()
    return {
      ...(await mail.tally()),
      ...(error !== undefined && { notes: ['the start said why it failed'] }),
      failures: error === undefined ? ['a damaged store was no error'] : [],
    }
  },
}

export const wipedStore: Scenario = {
  name: 'wiped-store',
  client: 'libolm',
  lostBecause: 'knows DEVICE by another identity',
  story: 'The store is gone, the access token is not.',
  trouble: 'a new identity under the old device ID: those who knew the old one write into the void',
  shows: ({ lost }) => lost.some(({ cause }) => cause === undefined),
  async run(stage) {
    const alice = await stage.libolm()
    const mail = stage.mailbox(alice)
    await mail.write(2)
    await mail.round()
    await mail.writeAgain({ isGone: true })
    await alice.wipe()
    await mail.round()
    return mail.tally()
  },
}
